// SPDX-License-Identifier: MIT
// The state of the Linux system under Wine. Wine's own figures will not do: a process sees the processors that were
// there when it started.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#include "state.h"

static const uint64_t SECONDS_1601_TO_1970 = 11644473600;
static const uint64_t TICKS_PER_SECOND = 10000000;

// Reads at most size - 1 bytes of a file of the host, by the path form that needs no drive letter for the root.
static bool ReadHostFile(const char *path, char *text, size_t size)
{
    char name[128] = "\\\\?\\unix";
    strncat(name, path, sizeof name - strlen(name) - 1);
    for (char *slash = name; *slash != '\0'; slash++)
    {
        if (*slash == '/')
        {
            *slash = '\\';
        }
    }
    HANDLE file = CreateFileA(name, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
    {
        fprintf(stderr, "hpprobe: cannot open %s: error %lu\n", path, GetLastError());
        return false;
    }
    size_t length = 0;
    DWORD count = 0;
    do
    {
        if (!ReadFile(file, text + length, (DWORD)(size - 1 - length), &count, NULL))
        {
            break; // the end of a file of /proc is an error to Wine, whose stat says it is empty
        }
        length += count;
    } while (count > 0 && length < size - 1);
    CloseHandle(file);
    text[length] = '\0';
    if (length == 0)
    {
        fprintf(stderr, "hpprobe: cannot read %s\n", path);
    }
    return length > 0;
}

// Counts a list such as "0-2,5" (Linux Documentation/admin-guide/cputopology.rst).
static uint32_t CountProcessors(const char *list)
{
    uint32_t count = 0;
    while (*list >= '0' && *list <= '9')
    {
        char *end;
        const unsigned long first = strtoul(list, &end, 10);
        const unsigned long last = *end == '-' ? strtoul(end + 1, &end, 10) : first;
        count += (uint32_t)(last - first + 1);
        list = *end == ',' ? end + 1 : end;
    }
    return count;
}

// The number after a word that begins a line; 0 when there is none.
static uint64_t FindNumber(const char *text, const char *word)
{
    const size_t length = strlen(word);
    for (const char *line = text; line != NULL; line = strchr(line, '\n'))
    {
        line += *line == '\n';
        if (strncmp(line, word, length) == 0)
        {
            return strtoull(line + length, NULL, 10);
        }
    }
    return 0;
}

bool QueryWineState(SYSTEM_STATE *state)
{
    static char text[1 << 20]; // /proc/stat has a number for each interrupt
    if (!ReadHostFile("/sys/devices/system/cpu/online", text, sizeof text))
    {
        return false;
    }
    state->activeProcessors = CountProcessors(text);
    if (!ReadHostFile("/proc/meminfo", text, sizeof text))
    {
        return false;
    }
    state->memoryBytes = FindNumber(text, "MemTotal:") * 1024;
    if (!ReadHostFile("/proc/stat", text, sizeof text))
    {
        return false;
    }
    state->bootTime100ns = (FindNumber(text, "btime ") + SECONDS_1601_TO_1970) * TICKS_PER_SECOND;
    if (!ReadHostFile("/proc/sys/kernel/random/boot_id", state->bootId, sizeof state->bootId))
    {
        return false;
    }
    state->bootId[strcspn(state->bootId, "\r\n")] = '\0';
    return true;
}
