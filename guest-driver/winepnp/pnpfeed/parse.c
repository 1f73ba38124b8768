// SPDX-License-Identifier: MIT
// Words of a request line to values. Nothing is guessed: what does not parse in full is refused.
#include "pnpfeed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const GUID g_processorClass = {0x97fadb10, 0x4e33, 0x40ae, {0x35, 0x9c, 0x8b, 0xef, 0x02, 0x9d, 0xbd, 0xd0}};
static const GUID g_memoryClass = {0x3fd0f03d, 0x92e0, 0x45fb, {0xb7, 0x5c, 0x5e, 0xd8, 0xff, 0xb0, 0x10, 0x21}};

bool PfSplit(char *line, PfRequest *request)
{
    request->count = 0;
    for (char *word = strtok(line, " "); word != NULL; word = strtok(NULL, " "))
    {
        if (request->count == PF_WORDS)
        {
            return false;
        }
        request->words[request->count++] = word;
    }
    return request->count != 0;
}

bool PfParseUnsigned(const char *word, unsigned long long maximum, unsigned long long *value)
{
    if (word[0] < '0' || word[0] > '9') // strtoull would take signs and spaces
    {
        return false;
    }
    const int base = strncmp(word, "0x", 2) == 0 ? 16 : 10;
    char *end = NULL;
    errno = 0;
    *value = strtoull(word, &end, base);
    return errno == 0 && *end == '\0' && *value <= maximum;
}

// Digits of one GUID field, most significant first.
static bool PfParseField(const char *text, size_t digits, unsigned long *value)
{
    char field[9] = {0};
    if (digits >= sizeof field || strspn(text, "0123456789abcdefABCDEF") < digits)
    {
        return false;
    }
    memcpy(field, text, digits);
    *value = strtoul(field, NULL, 16);
    return true;
}

bool PfParseGuid(const char *word, GUID *guid)
{
    unsigned long first = 0;
    unsigned long second = 0;
    unsigned long third = 0;
    if (strlen(word) != 38 || word[0] != '{' || word[9] != '-' || word[14] != '-' || word[19] != '-' ||
        word[24] != '-' || word[37] != '}' || !PfParseField(word + 1, 8, &first) ||
        !PfParseField(word + 10, 4, &second) || !PfParseField(word + 15, 4, &third))
    {
        return false;
    }
    guid->Data1 = first;
    guid->Data2 = (unsigned short)second;
    guid->Data3 = (unsigned short)third;
    for (size_t index = 0; index < sizeof guid->Data4; index++)
    {
        unsigned long byte = 0;
        if (!PfParseField(word + (index < 2 ? 20 : 21) + 2 * index, 2, &byte))
        {
            return false;
        }
        guid->Data4[index] = (unsigned char)byte;
    }
    return true;
}

bool PfParseClass(const char *word, GUID *guid)
{
    const bool processor = strcmp(word, "processor") == 0;
    *guid = processor ? g_processorClass : g_memoryClass;
    return processor || strcmp(word, "memory") == 0;
}

bool PfParseLink(const char *word, WINEPNP_NOTICE *notice)
{
    const int written = MultiByteToWideChar(
        CP_UTF8, MB_ERR_INVALID_CHARS, word, (int)strlen(word), notice->Link, WINEPNP_LINK_CHARACTERS);
    notice->LinkCharacters = (ULONG)written;
    return written > 0;
}
