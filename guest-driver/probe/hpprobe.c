// SPDX-License-Identifier: MIT
// hpprobe: says as JSON how many processors and how much memory the system uses, which boot it is, and the time; once,
// or for each line of stdin. A line may also want a device interface announced, or to know of which interfaces programs
// were told. Or it has the system write to its disk what a hard reset would lose.
#include <fcntl.h>
#include <inttypes.h>
#include <io.h>
#include <stdio.h>
#include <string.h>
#include <windows.h>

#include "announce.h"
#include "facts.h"
#include "json.h"
#include "save.h"
#include "state.h"
#include "told.h"

enum
{
    REQUEST_BYTES = 1024, // a request line is echoed up to here
    EXIT_UNREADABLE = 1,
    EXIT_UNSAVED = 1,
    EXIT_USAGE = 2
};

static bool IsWine(void)
{
    HMODULE ntdll = GetModuleHandleW(L"ntdll.dll");
    return ntdll != NULL && GetProcAddress(ntdll, "wine_get_version") != NULL;
}

// Whether a request line wants to know what was told; if so, the line is cut after its id.
static bool WantsTold(char *request)
{
    static const char verb[] = " told";
    char *space = strchr(request, ' ');
    if (space == NULL || strcmp(space, verb) != 0)
    {
        return false;
    }
    *space = '\0';
    return true;
}

static void PrintTold(bool wine, bool listens)
{
    static TOLD told;
    if (!listens)
    {
        printf(",\"told\":null");
        return;
    }
    const char *separator = "";
    printf(",\"told\":[");
    while (wine ? TakeToldOnWine(&told) : TakeToldOnWindows(&told))
    {
        printf(
            "%s{\"number\":%" PRIu64 ",\"class\":\"%s\",\"event\":\"%s\",\"qpc\":%" PRId64 ",\"link\":", separator,
            told.number, InterfaceClassWord(told.interfaceClass), told.arrival ? "arrival" : "removal", told.qpc);
        PrintString(told.link);
        putchar('}');
        separator = ",";
    }
    putchar(']');
}

// Says with the sample what came of an announcement, if there was one, and what was told, if that was asked for.
static bool PrintSample(const char *id, bool wine, const ANNOUNCED *announced, const bool *listens)
{
    SYSTEM_STATE state = {0};
    LARGE_INTEGER frequency;
    LARGE_INTEGER counter;
    FILETIME time;
    if (!(wine ? QueryWineState(&state) : QueryWindowsState(&state)))
    {
        return false;
    }
    printf("{\"format\":1,\"id\":");
    PrintString(id);
    printf(",\"active_processors\":%" PRIu32 ",\"memory_bytes\":%" PRIu64, state.activeProcessors, state.memoryBytes);
    printf(",\"boot_id\":");
    PrintString(state.bootId);
    printf(",\"boot_time_100ns\":%" PRIu64, state.bootTime100ns);
    if (listens != NULL)
    {
        PrintTold(wine, *listens);
    }
    QueryPerformanceFrequency(&frequency);
    // Both clocks last: who asks knows then that they were read just before the answer came.
    QueryPerformanceCounter(&counter);
    GetSystemTimePreciseAsFileTime(&time);
    const uint64_t systemTime = (uint64_t)time.dwHighDateTime << 32 | time.dwLowDateTime;
    printf(
        ",\"qpc\":%" PRId64 ",\"qpc_hz\":%" PRId64 ",\"system_time_100ns\":%" PRIu64 ",\"platform\":\"%s\"",
        (int64_t)counter.QuadPart, (int64_t)frequency.QuadPart, systemTime, wine ? "wine" : "windows");
    if (announced != NULL)
    {
        const bool failed = announced->link[0] == '\0';
        printf(",\"%s\":", failed ? "announce_error" : "announced");
        PrintString(failed ? announced->error : announced->link);
    }
    printf("}\n");
    return fflush(stdout) == 0;
}

// Reads one line without its end, cut to what there is room for; false at the end of the input.
static bool ReadRequest(char *request, size_t size)
{
    size_t length = 0;
    int character;
    while ((character = getchar()) != EOF && character != '\n')
    {
        if (length < size - 1 && character != '\0')
        {
            request[length++] = (char)character;
        }
    }
    if (length > 0 && request[length - 1] == '\r')
    {
        length--;
    }
    request[length] = '\0';
    return character != EOF || length > 0;
}

int main(int argc, char **argv)
{
    static char request[REQUEST_BYTES];
    const bool wine = IsWine();
    // No LF to CR LF on the way out, and no Ctrl-Z as an end on the way in.
    (void)_setmode(_fileno(stdin), _O_BINARY);
    (void)_setmode(_fileno(stdout), _O_BINARY);
    if (argc == 1)
    {
        return PrintSample("", wine, NULL, NULL) ? 0 : EXIT_UNREADABLE;
    }
    if (argc == 2 && strcmp(argv[1], "--save") == 0)
    {
        return (wine ? SaveWine() : SaveWindows()) ? 0 : EXIT_UNSAVED;
    }
    if (argc == 2 && strcmp(argv[1], "--facts") == 0)
    {
        return PrintFacts(wine) ? 0 : EXIT_UNREADABLE;
    }
    if (argc != 2 || strcmp(argv[1], "--loop") != 0)
    {
        fprintf(
            stderr,
            "usage: hpprobe          one sample as a line of JSON\n"
            "       hpprobe --loop   one for each line of stdin, which it carries as \"id\";\n"
            "                        <id> announce <processor|memory> <arrival|removal> <name> announces first,\n"
            "                        <id> told adds what programs were told of such interfaces since it was asked\n"
            "       hpprobe --facts  what decides whether this system can be hot-plugged, as a line of JSON\n"
            "       hpprobe --save   write registry and files to the disk\n");
        return EXIT_USAGE;
    }
    const bool listens = wine ? ListenOnWine() : ListenOnWindows();
    while (ReadRequest(request, sizeof request))
    {
        ANNOUNCED announced;
        char *words = NULL;
        const bool announces = IsAnnouncement(request, &words);
        if (announces)
        {
            Announce(words, wine, &announced);
        }
        const bool wantsTold = !announces && WantsTold(request);
        if (!PrintSample(request, wine, announces ? &announced : NULL, wantsTold ? &listens : NULL))
        {
            return EXIT_UNREADABLE;
        }
    }
    return 0;
}
