// SPDX-License-Identifier: MIT
// One ACPI slot, and taking what is in it one step further.
#pragma once

#include "hpfeed.h"

typedef enum
{
    SLOT_ABSENT,
    SLOT_PRESENT,   // Linux has not finished taking it in
    SLOT_STARTING,  // a vCPU on its way online
    SLOT_ANNOUNCED, // the driver was told, or it was there before
    SLOT_ABANDONED, // it came to nothing, which was said once
} slot_state;

typedef enum
{
    SLOT_VCPU,
    SLOT_DIMM,
} slot_kind;

typedef struct
{
    slot_kind kind;
    unsigned number; // the ACPI instance, as in LNXCPU:0a
    char name[32];
    slot_state state;
    int64_t until_ms; // of waiting for Linux
    unsigned cpu;     // a vCPU's number in Linux
} acpi_slot;

// devices.c
void hf_slot_link(const acpi_slot *slot, char *line, size_t size, const char *verb); // verb class link
void hf_advance_vcpu(acpi_slot *slot);
void hf_advance_dimm(acpi_slot *slot);
