/* UTF-8 (RFC 3629): no overlong form, no surrogate, nothing above U+10FFFF. */
#ifndef STEEP_UTF8_H
#define STEEP_UTF8_H

#include <stdbool.h>
#include <stddef.h>

bool utf8_valid(const unsigned char *text, size_t length);

/* Whether valid UTF-8 holds a control character: U+0000 to U+001F, U+007F to U+009F. */
bool utf8_has_control(const unsigned char *text, size_t length);

#endif
