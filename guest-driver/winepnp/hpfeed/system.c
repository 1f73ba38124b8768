// SPDX-License-Identifier: MIT
// What Linux uses: processors online, and bytes of memory.
#include "hpfeed.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Without memory blocks (a kernel without memory hot-plug) what the kernel has left for use.
static uint64_t total_from_meminfo(void)
{
    unsigned long long kibibytes = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL || fscanf(file, "MemTotal: %llu kB", &kibibytes) != 1)
    {
        hf_log("no MemTotal in /proc/meminfo");
    }
    if (file != NULL)
    {
        (void)fclose(file);
    }
    return kibibytes * 1024;
}

static uint64_t memory_bytes(void)
{
    char text[64];
    const int file = hf_open_directory("devices/system/memory");
    if (file < 0 || !hf_read("devices/system/memory/block_size_bytes", text, sizeof text))
    {
        if (file >= 0)
        {
            (void)close(file);
        }
        return total_from_meminfo();
    }
    const uint64_t block_bytes = strtoull(text, NULL, 16);
    uint64_t blocks = 0;
    DIR *directory = fdopendir(file);
    for (struct dirent *entry = NULL; directory != NULL && (entry = readdir(directory)) != NULL;)
    {
        char path[HF_PATH_SIZE];
        (void)snprintf(path, sizeof path, "devices/system/memory/%s/state", entry->d_name);
        if (strncmp(entry->d_name, "memory", 6) == 0 && hf_read(path, text, sizeof text) && strcmp(text, "online") == 0)
        {
            blocks += 1;
        }
    }
    if (directory != NULL)
    {
        (void)closedir(directory);
    }
    return blocks * block_bytes;
}

bool hf_system_line(char *line, size_t size)
{
    char online[HF_LINE_SIZE];
    char possible[HF_LINE_SIZE];
    if (!hf_read("devices/system/cpu/online", online, sizeof online))
    {
        hf_log("cannot read devices/system/cpu/online: %m");
        return false;
    }
    const unsigned active = hf_list_count(online);
    const unsigned maximum =
        hf_read("devices/system/cpu/possible", possible, sizeof possible) ? hf_list_count(possible) : active;
    (void)snprintf(line, size, "system %u %llu %u", active, (unsigned long long)memory_bytes(), maximum);
    return true;
}

bool hf_cpu_online(unsigned cpu)
{
    char online[HF_LINE_SIZE];
    return hf_read("devices/system/cpu/online", online, sizeof online) && hf_list_has(online, cpu);
}

bool hf_bring_cpu_online(unsigned cpu)
{
    char path[HF_PATH_SIZE];
    (void)snprintf(path, sizeof path, "devices/system/cpu/cpu%u/online", cpu);
    return hf_cpu_online(cpu) || hf_write(path, "1");
}
