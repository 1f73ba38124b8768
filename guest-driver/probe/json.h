// SPDX-License-Identifier: MIT
// Writing JSON to stdout.
#ifndef HPPROBE_JSON_H
#define HPPROBE_JSON_H

#include <stdio.h>

// Writes text as a JSON string; a byte outside ASCII as the character of that number, so that any byte is valid JSON.
static inline void PrintString(const char *text)
{
    putchar('"');
    for (const unsigned char *byte = (const unsigned char *)text; *byte != '\0'; byte++)
    {
        if (*byte == '"' || *byte == '\\' || *byte < ' ' || *byte > '~')
        {
            printf("\\u%04x", (unsigned)*byte);
        }
        else
        {
            putchar(*byte);
        }
    }
    putchar('"');
}

#endif
