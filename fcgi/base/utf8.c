#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

/* The length of the sequence at text, 0 where there is no valid one. */
static size_t sequence(const unsigned char *text, size_t left)
{
    unsigned char c = text[0];
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    size_t length;

    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf)
        length = 2;
    else if (c >= 0xe0 && c <= 0xef)
        length = 3;
    else if (c >= 0xf0 && c <= 0xf4)
        length = 4;
    else
        return 0;
    if (length > left)
        return 0;

    /* Unicode 15, table 3-7: only the second byte's range depends on the first. */
    if (c == 0xe0)
        low = 0xa0;
    else if (c == 0xed)
        high = 0x9f;
    else if (c == 0xf0)
        low = 0x90;
    else if (c == 0xf4)
        high = 0x8f;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if (text[i] < 0x80 || text[i] > 0xbf)
            return 0;
    }
    return length;
}

bool utf8_valid(const unsigned char *text, size_t length)
{
    size_t i = 0;

    while (i < length) {
        uint64_t word;
        size_t step;

        /* Nearly all of a batch is ASCII: eight bytes at a time. */
        if (length - i >= sizeof(word)) {
            memcpy(&word, text + i, sizeof(word));
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof(word);
                continue;
            }
        }
        step = sequence(text + i, length - i);
        if (step == 0)
            return false;
        i += step;
    }
    return true;
}

bool utf8_has_control(const unsigned char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] < 0x20 || text[i] == 0x7f)
            return true;
        if (text[i] == 0xc2 && i + 1 < length && text[i + 1] < 0xa0)
            return true;
    }
    return false;
}
