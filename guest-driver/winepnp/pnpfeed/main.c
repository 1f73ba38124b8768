// SPDX-License-Identifier: MIT
// pnpfeed.exe: reads request lines, answers each with one line, ends at the end of input.
#include "pnpfeed.h"

#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <string.h>

// Reads a whole line of whatever length; false at the end of input. What does not fit is dropped and *whole is false.
static bool PfReadLine(char *line, size_t size, bool *whole)
{
    size_t length = 0;
    int character = getchar();
    if (character == EOF)
    {
        return false;
    }
    *whole = true;
    for (; character != EOF && character != '\n'; character = getchar())
    {
        const bool taken = length + 1 < size && character != '\0';
        *whole = *whole && taken;
        if (taken)
        {
            line[length++] = (char)character;
        }
    }
    if (length != 0 && line[length - 1] == '\r')
    {
        length -= 1;
    }
    line[length] = '\0';
    return true;
}

int main(void)
{
    char line[PF_LINE_CHARACTERS];
    char reply[PF_LINE_CHARACTERS];
    bool whole = true;
    (void)_setmode(_fileno(stdin), _O_BINARY);
    (void)_setmode(_fileno(stdout), _O_BINARY);
    while (PfReadLine(line, sizeof line, &whole))
    {
        if (whole)
        {
            PfAnswer(line, reply, sizeof reply);
        }
        else
        {
            (void)snprintf(reply, sizeof reply, "error 0x%08lx the line is too long or not text", ERROR_INVALID_DATA);
        }
        if (printf("%s\n", reply) < 0 || fflush(stdout) != 0)
        {
            return 1;
        }
    }
    return 0;
}
