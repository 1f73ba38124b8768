// SPDX-License-Identifier: MIT
// Small files and links of sysfs.
#include "hpfeed.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int g_root = -1;

void hf_set_sysfs(const char *root)
{
    g_root = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (g_root < 0)
    {
        hf_log("cannot open %s: %m", root);
        exit(1);
    }
}

bool hf_read(const char *path, char *text, size_t size)
{
    const int file = openat(g_root, path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
    {
        return false;
    }
    const ssize_t length = read(file, text, size - 1);
    (void)close(file);
    if (length < 0)
    {
        return false;
    }
    text[length] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return true;
}

bool hf_write(const char *path, const char *text)
{
    const int file = openat(g_root, path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
    {
        return false;
    }
    const bool written = write(file, text, strlen(text)) == (ssize_t)strlen(text);
    (void)close(file);
    return written;
}

bool hf_link_name(const char *path, char *name, size_t size)
{
    char target[HF_PATH_SIZE];
    const ssize_t length = readlinkat(g_root, path, target, sizeof target - 1);
    if (length < 0)
    {
        return false;
    }
    target[length] = '\0';
    const char *slash = strrchr(target, '/');
    const char *last = slash == NULL ? target : slash + 1;
    if (strlen(last) >= size)
    {
        return false;
    }
    (void)strcpy(name, last);
    return true;
}

int hf_open_directory(const char *path)
{
    return openat(g_root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

// Calls of both list readers: the next range of the list, false at its end.
static bool next_range(const char **list, unsigned long *first, unsigned long *last)
{
    char *end = NULL;
    *first = strtoul(*list, &end, 10);
    if (end == *list)
    {
        return false;
    }
    *last = *first;
    if (*end == '-')
    {
        *last = strtoul(end + 1, &end, 10);
    }
    *list = *end == ',' ? end + 1 : end;
    return true;
}

bool hf_list_has(const char *list, unsigned number)
{
    unsigned long first = 0;
    unsigned long last = 0;
    while (next_range(&list, &first, &last))
    {
        if (number >= first && number <= last)
        {
            return true;
        }
    }
    return false;
}

unsigned hf_list_count(const char *list)
{
    unsigned long first = 0;
    unsigned long last = 0;
    unsigned long count = 0;
    while (next_range(&list, &first, &last))
    {
        count += last >= first ? last - first + 1 : 0;
    }
    return (unsigned)count;
}
