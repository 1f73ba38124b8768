// SPDX-License-Identifier: MIT
// One routine per verb of the line protocol.
#include "pnpfeed.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

typedef struct PfReply
{
    char *text;
    size_t size;
} PfReply;

static HANDLE g_device = INVALID_HANDLE_VALUE;

static void PfSay(const PfReply *reply, const char *text)
{
    (void)snprintf(reply->text, reply->size, "%s", text);
}

static void PfSayError(const PfReply *reply, DWORD code, const char *text)
{
    (void)snprintf(reply->text, reply->size, "error 0x%08lx %s", code, text);
}

static void PfRefuse(const PfReply *reply, const char *usage)
{
    (void)snprintf(reply->text, reply->size, "error 0x%08lx usage: %s", ERROR_INVALID_PARAMETER, usage);
}

// Sends one request. The device is opened when needed, again after a failure: winepnp may have been started since.
static bool PfControl(const PfReply *reply, DWORD code, void *input, DWORD inputSize, void *output, DWORD outputSize)
{
    if (g_device == INVALID_HANDLE_VALUE)
    {
        g_device = CreateFileA(
            "\\\\.\\winepnp", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0,
            NULL);
    }
    if (g_device == INVALID_HANDLE_VALUE)
    {
        PfSayError(reply, GetLastError(), "winepnp is not running");
        return false;
    }
    DWORD returned = 0;
    if (DeviceIoControl(g_device, code, input, inputSize, output, outputSize, &returned, NULL) &&
        returned == outputSize)
    {
        return true;
    }
    const DWORD error = GetLastError();
    switch (error)
    {
    case ERROR_ALREADY_EXISTS:
        PfSayError(reply, error, "there is such an interface already");
        break;
    case ERROR_FILE_NOT_FOUND:
        PfSayError(reply, error, "there is no such interface");
        break;
    default:
        PfSayError(reply, error, "winepnp refused");
        (void)CloseHandle(g_device);
        g_device = INVALID_HANDLE_VALUE;
        break;
    }
    return false;
}

static void PfSayCalled(const PfReply *reply, const WINEPNP_CALLED *called)
{
    if (called->FirstFailure == 0)
    {
        (void)snprintf(reply->text, reply->size, "ok %lu", called->Callbacks);
        return;
    }
    (void)snprintf(reply->text, reply->size, "ok %lu status=0x%08lx", called->Callbacks, called->FirstFailure);
}

static void PfSystem(const PfRequest *request, const PfReply *reply)
{
    unsigned long long active = 0;
    unsigned long long memoryBytes = 0;
    unsigned long long maximum = 0;
    if (request->count < 3 || request->count > 4 || !PfParseUnsigned(request->words[1], USHRT_MAX, &active) ||
        !PfParseUnsigned(request->words[2], LLONG_MAX, &memoryBytes) ||
        (request->count == 4 && !PfParseUnsigned(request->words[3], USHRT_MAX, &maximum)))
    {
        PfRefuse(reply, "system <active processors> <memory bytes> [<maximum processors>]");
        return;
    }
    WINEPNP_SYSTEM figures = {(ULONG)active, request->count == 4 ? (ULONG)maximum : (ULONG)active, memoryBytes};
    if (PfControl(reply, WINEPNP_IOCTL_SYSTEM, &figures, sizeof figures, NULL, 0))
    {
        PfSay(reply, "ok");
    }
}

static void PfExisting(const PfRequest *request, const PfReply *reply)
{
    WINEPNP_NOTICE notice = {0};
    if (request->count != 3 || !PfParseClass(request->words[1], &notice.ClassGuid) ||
        !PfParseLink(request->words[2], &notice))
    {
        PfRefuse(reply, "existing <processor|memory> <link>");
        return;
    }
    if (PfControl(reply, WINEPNP_IOCTL_EXISTING, &notice, sizeof notice, NULL, 0))
    {
        PfSay(reply, "ok");
    }
}

static void PfArriveOrRemove(const PfRequest *request, const PfReply *reply)
{
    const DWORD code = strcmp(request->words[0], "arrive") == 0 ? WINEPNP_IOCTL_ARRIVE : WINEPNP_IOCTL_REMOVE;
    WINEPNP_NOTICE notice = {0};
    WINEPNP_CALLED called = {0};
    if (request->count != 3 || !PfParseClass(request->words[1], &notice.ClassGuid) ||
        !PfParseLink(request->words[2], &notice))
    {
        PfRefuse(reply, "arrive|remove <processor|memory> <link>");
        return;
    }
    if (PfControl(reply, code, &notice, sizeof notice, &called, sizeof called))
    {
        PfSayCalled(reply, &called);
    }
}

static void PfDeliver(const PfRequest *request, const PfReply *reply)
{
    WINEPNP_NOTICE notice = {0};
    WINEPNP_CALLED called = {0};
    if (request->count != 4 || !PfParseGuid(request->words[1], &notice.ClassGuid) ||
        !PfParseGuid(request->words[2], &notice.EventGuid) || !PfParseLink(request->words[3], &notice))
    {
        PfRefuse(reply, "deliver <class guid> <event guid> <link>");
        return;
    }
    if (PfControl(reply, WINEPNP_IOCTL_DELIVER, &notice, sizeof notice, &called, sizeof called))
    {
        PfSayCalled(reply, &called);
    }
}

static void PfProcessor(const PfRequest *request, const PfReply *reply)
{
    static const char *const states[] = {"add_start", "add_complete", "add_failure"};
    const ULONG stateCount = sizeof states / sizeof states[0];
    unsigned long long number = 0;
    unsigned long long status = 0;
    ULONG state = 0;
    while (state < stateCount && (request->count < 2 || strcmp(request->words[1], states[state]) != 0))
    {
        state += 1;
    }
    if (request->count != 4 || state == stateCount || !PfParseUnsigned(request->words[2], USHRT_MAX, &number) ||
        !PfParseUnsigned(request->words[3], ULONG_MAX, &status))
    {
        PfRefuse(reply, "processor <add_start|add_complete|add_failure> <number> <status>");
        return;
    }
    WINEPNP_PROCESSOR change = {state, (ULONG)number, (LONG)(ULONG)status};
    WINEPNP_CALLED called = {0};
    if (PfControl(reply, WINEPNP_IOCTL_PROCESSOR, &change, sizeof change, &called, sizeof called))
    {
        (void)snprintf(reply->text, reply->size, "ok 0x%08lx", called.FirstFailure);
    }
}

static void PfFail(const PfRequest *request, const PfReply *reply)
{
    WINEPNP_FAIL fail = {0};
    unsigned long long passes = 0;
    const bool clear = request->count == 2 && strcmp(request->words[1], "clear") == 0;
    if (!clear)
    {
        if (request->count < 3 || request->count > 4 || strlen(request->words[1]) >= sizeof fail.Import ||
            !PfParseUnsigned(request->words[2], ULLONG_MAX, &fail.Value) ||
            (request->count == 4 && !PfParseUnsigned(request->words[3], LONG_MAX, &passes)))
        {
            PfRefuse(reply, "fail <import> <value> [<calls that pass>] or fail clear");
            return;
        }
        (void)strcpy(fail.Import, request->words[1]);
        fail.Passes = (LONG64)passes;
    }
    if (PfControl(reply, WINEPNP_IOCTL_FAIL, &fail, sizeof fail, NULL, 0))
    {
        PfSay(reply, "ok");
    }
}

static void PfSwitch(const PfRequest *request, const PfReply *reply)
{
    static const char *const switches[] = {[WINEPNP_SWITCH_NEWER] = "newer", [WINEPNP_SWITCH_TWICE] = "twice"};
    WINEPNP_SWITCH change = {WINEPNP_SWITCHES, 0};
    for (ULONG number = 0; request->count == 3 && number < WINEPNP_SWITCHES; number++)
    {
        change.Number = strcmp(request->words[1], switches[number]) == 0 ? number : change.Number;
    }
    change.On = request->count == 3 && strcmp(request->words[2], "on") == 0;
    if (change.Number == WINEPNP_SWITCHES || (!change.On && strcmp(request->words[2], "off") != 0))
    {
        PfRefuse(reply, "switch <newer|twice> <on|off>");
        return;
    }
    if (PfControl(reply, WINEPNP_IOCTL_SWITCH, &change, sizeof change, NULL, 0))
    {
        PfSay(reply, "ok");
    }
}

static void PfState(const PfRequest *request, const PfReply *reply)
{
    WINEPNP_STATE state = {0};
    if (request->count != 1)
    {
        PfRefuse(reply, "state");
        return;
    }
    if (PfControl(reply, WINEPNP_IOCTL_STATE, NULL, 0, &state, sizeof state))
    {
        (void)snprintf(
            reply->text, reply->size,
            "ok registrations=%lu synchronous=%lu interfaces=%lu failed_imports=%lu misuses=%lu memory_asked=%lu",
            state.Registrations, state.Synchronous, state.Interfaces, state.FailedImports, state.Misuses,
            state.MemoryAsked);
    }
}

void PfAnswer(char *line, char *replyText, size_t replySize)
{
    static const struct
    {
        const char *verb;
        void (*carryOut)(const PfRequest *request, const PfReply *reply);
    } verbs[] = {
        {"system", PfSystem},
        {"existing", PfExisting},
        {"arrive", PfArriveOrRemove},
        {"remove", PfArriveOrRemove},
        {"deliver", PfDeliver},
        {"processor", PfProcessor},
        {"fail", PfFail},
        {"switch", PfSwitch},
        {"state", PfState},
    };
    const PfReply reply = {replyText, replySize};
    PfRequest request = {0};
    if (PfSplit(line, &request))
    {
        for (size_t index = 0; index < sizeof verbs / sizeof verbs[0]; index++)
        {
            if (strcmp(request.words[0], verbs[index].verb) == 0)
            {
                verbs[index].carryOut(&request, &reply);
                return;
            }
        }
    }
    PfRefuse(&reply, "system|existing|arrive|remove|deliver|processor|fail|switch|state ...");
}
