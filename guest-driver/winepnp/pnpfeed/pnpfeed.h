// SPDX-License-Identifier: MIT
// pnpfeed.exe: request lines on stdin become device control requests to winepnp.sys.
#pragma once

#include <windows.h>
#include <winioctl.h>
#include <stdbool.h>
#include "../winepnp_ioctl.h"

enum
{
    PF_LINE_CHARACTERS = 1024,
    PF_WORDS = 5,
};

// A request line cut at its spaces; words[0] is the verb.
typedef struct PfRequest
{
    const char *words[PF_WORDS];
    size_t count;
} PfRequest;

// parse.c: values from words; false when the word is not one.
bool PfSplit(char *line, PfRequest *request);
bool PfParseUnsigned(const char *word, unsigned long long maximum, unsigned long long *value);
bool PfParseGuid(const char *word, GUID *guid);
bool PfParseClass(const char *word, GUID *guid);
bool PfParseLink(const char *word, WINEPNP_NOTICE *notice);

// commands.c: carries out one request line and writes one reply line, without its end.
void PfAnswer(char *line, char *reply, size_t replySize);
