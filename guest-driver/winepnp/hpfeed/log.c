// SPDX-License-Identifier: MIT
// Stamped lines on stderr, which is the guest's serial console.
#include "hpfeed.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int g_copy = -1;

void hf_log_also_to(const char *path)
{
    g_copy = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (g_copy < 0)
    {
        hf_log("cannot write %s: %m", path);
        exit(1);
    }
}

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
    if (write(STDERR_FILENO, line, (size_t)length + 1) < 0 ||
        (g_copy >= 0 && write(g_copy, line, (size_t)length + 1) < 0))
    {
        return; // nowhere left to say so
    }
}
