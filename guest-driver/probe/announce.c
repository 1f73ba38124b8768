// SPDX-License-Identifier: MIT
// The request "<id> announce <processor|memory> <arrival|removal> <name>", and what both systems need for it.
#include "announce.h"

#include <stdio.h>
#include <string.h>

static const struct
{
    const char *word;
    GUID guid;
    const char *text;
} g_classes[CLASS_COUNT] = {
    // poclass.h: GUID_DEVICE_PROCESSOR and GUID_DEVICE_MEMORY
    [CLASS_PROCESSOR] =
        {"processor",
         {0x97fadb10, 0x4e33, 0x40ae, {0x35, 0x9c, 0x8b, 0xef, 0x02, 0x9d, 0xbd, 0xd0}},
         "{97fadb10-4e33-40ae-359c-8bef029dbdd0}"},
    [CLASS_MEMORY] =
        {"memory",
         {0x3fd0f03d, 0x92e0, 0x45fb, {0xb7, 0x5c, 0x5e, 0xd8, 0xff, 0xb0, 0x10, 0x21}},
         "{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}"},
};

const GUID *InterfaceClassGuid(INTERFACE_CLASS interfaceClass)
{
    return &g_classes[interfaceClass].guid;
}

const char *InterfaceClassWord(INTERFACE_CLASS interfaceClass)
{
    return g_classes[interfaceClass].word;
}

const char *InterfaceClassText(INTERFACE_CLASS interfaceClass)
{
    return g_classes[interfaceClass].text;
}

void SayAnnounceError(ANNOUNCED *announced, const char *what, unsigned long error)
{
    (void)snprintf(announced->error, sizeof announced->error, "%s: error %lu (0x%08lx)", what, error, error);
}

bool IsAnnouncement(char *request, char **words)
{
    static const char verb[] = " announce";
    char *space = strchr(request, ' ');
    if (space == NULL || strncmp(space, verb, sizeof verb - 1) != 0)
    {
        return false;
    }
    char *rest = space + sizeof verb - 1;
    if (*rest != '\0' && *rest != ' ')
    {
        return false;
    }
    *words = rest;
    *space = '\0';
    return true;
}

static bool ParseName(const char *word, ANNOUNCEMENT *announcement)
{
    const size_t length = strlen(word);
    if (length > ANNOUNCE_NAME_CHARACTERS || strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789") != length)
    {
        return false;
    }
    (void)memcpy(announcement->name, word, length + 1);
    return true;
}

static bool Parse(char *words, ANNOUNCEMENT *announcement)
{
    const char *interfaceClass = strtok(words, " ");
    const char *event = strtok(NULL, " ");
    const char *name = strtok(NULL, " ");
    if (name == NULL || strtok(NULL, " ") != NULL)
    {
        return false;
    }
    announcement->interfaceClass = CLASS_PROCESSOR;
    while (strcmp(interfaceClass, g_classes[announcement->interfaceClass].word) != 0)
    {
        announcement->interfaceClass += 1;
        if (announcement->interfaceClass == CLASS_COUNT)
        {
            return false;
        }
    }
    announcement->arrival = strcmp(event, "arrival") == 0;
    return (announcement->arrival || strcmp(event, "removal") == 0) && ParseName(name, announcement);
}

void Announce(char *words, bool wine, ANNOUNCED *announced)
{
    ANNOUNCEMENT announcement = {0};
    *announced = (ANNOUNCED){0};
    if (!Parse(words, &announcement))
    {
        SayAnnounceError(
            announced, "usage: announce <processor|memory> <arrival|removal> <name of a-z and 0-9>",
            ERROR_INVALID_PARAMETER);
        return;
    }
    (wine ? AnnounceOnWine : AnnounceOnWindows)(&announcement, announced);
}
