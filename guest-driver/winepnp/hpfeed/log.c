// SPDX-License-Identifier: MIT
// Stamped lines on stderr, which is the guest's serial console.
#include "hpfeed.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int64_t hf_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void hf_log(const char *format, ...)
{
    char line[HF_LINE_SIZE + 64];
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "[%6lld.%06ld] hpfeed: ", (long long)now.tv_sec, now.tv_nsec / 1000);
    va_list arguments;
    va_start(arguments, format);
    const int text = vsnprintf(line + length, sizeof line - (size_t)length - 1, format, arguments);
    va_end(arguments);
    length += text < 0 ? 0 : text;
    if ((size_t)length > sizeof line - 2)
    {
        length = (int)sizeof line - 2;
    }
    line[length] = '\n';
    // One write per line, so that the kernel's own messages do not tear it.
    if (write(STDERR_FILENO, line, (size_t)length + 1) < 0)
    {
        return; // nowhere left to say so
    }
}
