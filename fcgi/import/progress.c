#include "import/progress.h"

#include <stdio.h>
#include <unistd.h>

enum { FIRST_MS = 2000, DRAWN_MS = 1000, LINE_MS = 10 * 1000 };

void progress_begin(struct progress *progress, bool is_quiet, int64_t now_ms)
{
    *progress = (struct progress){
        .is_quiet = is_quiet,
        .is_terminal = isatty(STDERR_FILENO) == 1,
        .began_ms = now_ms,
        .shown_ms = now_ms,
    };
}

static bool is_due(const struct progress *progress, int64_t now_ms)
{
    if (progress->is_quiet)
        return false;
    if (progress->is_terminal)
        return now_ms - progress->began_ms >= FIRST_MS && now_ms - progress->shown_ms >= DRAWN_MS;
    return now_ms - progress->shown_ms >= LINE_MS;
}

void progress_show(struct progress *progress, int64_t now_ms, int64_t done, int64_t total,
                   const char *unit)
{
    const char *before = progress->is_terminal ? "\r" : "steepctl: ";
    const char *after = progress->is_terminal ? "\033[K" : "\n";
    long long rate;

    if (!is_due(progress, now_ms))
        return;
    rate = done / ((now_ms - progress->began_ms) / 1000);
    if (done < total && rate > 0)
        fprintf(stderr, "%s%lld of %lld %s (%lld %%), %lld a second, %lld s left%s", before,
                (long long)done, (long long)total, unit, (long long)(done * 100 / total), rate,
                (total - done + rate - 1) / rate, after);
    else
        fprintf(stderr, "%s%lld %s, %lld a second%s", before, (long long)done, unit, rate, after);
    progress->shown_ms = now_ms;
    progress->is_drawn = progress->is_terminal;
}

void progress_wipe(struct progress *progress)
{
    if (progress->is_drawn)
        fputs("\r\033[K", stderr);
    progress->is_drawn = false;
}
