// SPDX-License-Identifier: MIT
// The driver log, format 1: the words of docs/driver-log.md and the routines that write one line of it.
// A driver of your own, in C or C++, may include this file: it needs <stddef.h> alone, imports nothing, allocates
// nothing and runs at any IRQL. Build a line with HpnBeginLine, the keys of its kind in order, HpnEndLine; then write
// line->text, line->length bytes, in one append.
#ifndef HPN_LOG_FORMAT_H
#define HPN_LOG_FORMAT_H

#include <stddef.h>

enum
{
    HPN_LOG_FORMAT = 1,
    HPN_LINK_CHARS = 200, // longest link kept, the '~' of a truncated one included
    HPN_LINE_BYTES =
        768 // the longest line has 602: 194 of common keys, a notification's 336, a context's 71, line feed
};

// What every line says, taken when the record was made and not when it was written.
typedef struct HPN_FACTS
{
    unsigned long long sequence;    // 0 at load, +1 for each record, lost ones included
    unsigned long long time100ns;   // system time, 100 ns since 1601-01-01 UTC
    unsigned long long qpc;         // KeQueryPerformanceCounter
    unsigned long long memoryBytes; // sum of the physical memory ranges; 0: could not be read
    unsigned long long lost;        // records of this load lost so far
    unsigned int activeProcessors;  // over all groups
} HPN_FACTS;

// In what context the record was made; a driver may leave all of it out.
typedef struct HPN_CONTEXT
{
    unsigned long long thread; // PsGetCurrentThreadId
    unsigned int irql;         // KeGetCurrentIrql
    unsigned int apcsDisabled; // 0: none, 1: normal kernel APCs (KeAreApcsDisabled), 2: all (KeAreAllApcsDisabled)
    unsigned int cpu;          // KeGetCurrentProcessorNumberEx
} HPN_CONTEXT;

typedef struct HPN_LINE
{
    size_t length;
    char text[HPN_LINE_BYTES];
} HPN_LINE;

static inline void HpnAppendCharacter(HPN_LINE *line, char character)
{
    // The last byte is kept for the line feed, so that even an overlong line ends as a line.
    if (line->length < sizeof line->text - 1)
    {
        line->text[line->length++] = character;
    }
}

static inline void HpnAppendText(HPN_LINE *line, const char *text)
{
    for (; *text != '\0'; text++)
    {
        HpnAppendCharacter(line, *text);
    }
}

static inline void HpnAppendHex(HPN_LINE *line, unsigned long long value, unsigned int digits)
{
    while (digits-- > 0)
    {
        HpnAppendCharacter(line, "0123456789abcdef"[(value >> (4 * digits)) & 0xf]);
    }
}

static inline void HpnAppendKey(HPN_LINE *line, const char *key)
{
    if (line->length > 0)
    {
        HpnAppendCharacter(line, ' ');
    }
    HpnAppendText(line, key);
    HpnAppendCharacter(line, '=');
}

static inline void HpnAppendWord(HPN_LINE *line, const char *key, const char *word)
{
    HpnAppendKey(line, key);
    HpnAppendText(line, word);
}

static inline void HpnAppendNumber(HPN_LINE *line, const char *key, unsigned long long value)
{
    char digits[20]; // 2^64 - 1 has 20
    size_t first = sizeof digits;
    do
    {
        digits[--first] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    HpnAppendKey(line, key);
    while (first < sizeof digits)
    {
        HpnAppendCharacter(line, digits[first++]);
    }
}

static inline void HpnAppendStatus(HPN_LINE *line, const char *key, unsigned int status)
{
    HpnAppendWord(line, key, "0x");
    HpnAppendHex(line, status, 8);
}

// guid: the 16 bytes of a GUID structure.
static inline void HpnAppendGuid(HPN_LINE *line, const char *key, const void *guid)
{
    // Order of the bytes in the text form; the first three fields are little-endian in memory.
    static const unsigned char order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    const unsigned char *bytes = (const unsigned char *)guid;
    HpnAppendWord(line, key, "{");
    for (size_t index = 0; index < sizeof order; index++)
    {
        if (index == 4 || index == 6 || index == 8 || index == 10)
        {
            HpnAppendCharacter(line, '-');
        }
        HpnAppendHex(line, bytes[order[index]], 2);
    }
    HpnAppendCharacter(line, '}');
}

// kind: load, baseline, notification, processor_change or unload.
static inline void HpnBeginLine(HPN_LINE *line, const char *kind, const HPN_FACTS *facts)
{
    line->length = 0;
    HpnAppendNumber(line, "seq", facts->sequence);
    HpnAppendWord(line, "record", kind);
    HpnAppendNumber(line, "time_100ns", facts->time100ns);
    HpnAppendNumber(line, "qpc", facts->qpc);
    HpnAppendNumber(line, "active_processors", facts->activeProcessors);
    HpnAppendNumber(line, "memory_bytes", facts->memoryBytes);
    HpnAppendNumber(line, "lost", facts->lost);
}

// Behind all other keys of the line.
static inline void HpnAppendContext(HPN_LINE *line, const HPN_CONTEXT *context)
{
    HpnAppendNumber(line, "irql", context->irql);
    HpnAppendNumber(line, "thread", context->thread);
    HpnAppendNumber(line, "apcs_disabled", context->apcsDisabled);
    HpnAppendNumber(line, "cpu", context->cpu);
}

static inline void HpnEndLine(HPN_LINE *line)
{
    line->text[line->length++] = '\n';
}

// Copies a symbolic link of `units` UTF-16 units (it need not end in NUL) as one word: a space or anything outside
// printable ASCII becomes '?', a link too long is cut and ends in '~'.
static inline void HpnCopyLink(char word[HPN_LINK_CHARS + 1], const wchar_t *link, size_t units)
{
    const size_t kept = units > HPN_LINK_CHARS ? HPN_LINK_CHARS - 1 : units;
    for (size_t index = 0; index < kept; index++)
    {
        word[index] = (char)((link[index] > ' ' && link[index] < 0x7f) ? link[index] : '?');
    }
    word[kept] = '~';
    word[units > kept ? kept + 1 : kept] = '\0';
}

#endif
