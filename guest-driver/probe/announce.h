// SPDX-License-Identifier: MIT
// Announcing a device interface without hardware: an arrival or a removal that the guest's own PnP manager tells.
#ifndef HPPROBE_ANNOUNCE_H
#define HPPROBE_ANNOUNCE_H

#include <stdbool.h>
#include <stddef.h>
#include <windows.h>

enum
{
    ANNOUNCE_NAME_CHARACTERS = 64,
    ANNOUNCE_TEXT_BYTES = 256,
};

#define ANNOUNCE_ENUMERATOR "HilHotplug"

typedef enum INTERFACE_CLASS
{
    CLASS_PROCESSOR,
    CLASS_MEMORY,
    CLASS_COUNT,
} INTERFACE_CLASS;

typedef struct ANNOUNCEMENT
{
    INTERFACE_CLASS interfaceClass;
    bool arrival;                            // else removal
    char name[ANNOUNCE_NAME_CHARACTERS + 1]; // the device's instance
} ANNOUNCEMENT;

// What came of it; the other text is empty.
typedef struct ANNOUNCED
{
    char link[ANNOUNCE_TEXT_BYTES]; // as drivers see it
    char error[ANNOUNCE_TEXT_BYTES];
} ANNOUNCED;

// announce.c. Whether a request line wants an announcement; if so, the line is cut after its id.
bool IsAnnouncement(char *request, char **words);
void Announce(char *words, bool wine, ANNOUNCED *announced);
const GUID *InterfaceClassGuid(INTERFACE_CLASS interfaceClass);
const char *InterfaceClassWord(INTERFACE_CLASS interfaceClass); // processor or memory
const char *InterfaceClassText(INTERFACE_CLASS interfaceClass); // {GUID} in lower case
void SayAnnounceError(ANNOUNCED *announced, const char *what, unsigned long error);

// One for each system. An arrival of what is there already and a removal of what is not are errors.
void AnnounceOnWindows(const ANNOUNCEMENT *announcement, ANNOUNCED *announced);
void AnnounceOnWine(const ANNOUNCEMENT *announcement, ANNOUNCED *announced);

#endif
