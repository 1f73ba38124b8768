// SPDX-License-Identifier: MIT
// What decides whether this system can be hot-plugged and take our driver, read without PowerShell.
#ifndef HPPROBE_FACTS_H
#define HPPROBE_FACTS_H

#include <stdbool.h>

// Prints them as one line of JSON; what the system does not say is null. False if that could not be written.
bool PrintFacts(bool wine);

#endif
