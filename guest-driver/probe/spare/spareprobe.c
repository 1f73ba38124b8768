// SPDX-License-Identifier: MIT
// spareprobe [ARGUMENT...]: hpprobe.exe by name in the reference guest, as on Windows.
//
// Starting a Wine process is slow under emulation. So whoever asks once, as the harness does before it saves a
// template, leaves a started probe behind; the next to want --loop takes it over, and nobody else after that.
// The spare is a folder with its two pipes, its process id and what it says on stderr. Taking over is renaming it.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum
{
    BROKEN = 1,
    PATH_SIZE = 256,
    DATA_SIZE = 4096,
};

static const char *set_or(const char *variable, const char *usual)
{
    const char *value = getenv(variable);
    return value != NULL ? value : usual;
}

static void spare_path(char path[PATH_SIZE], const char *suffix)
{
    (void)snprintf(path, PATH_SIZE, "%s%s", set_or("HPPROBE_SPARE", "/run/hpprobe"), suffix);
}

static void say(const char *what)
{
    (void)fprintf(stderr, "spareprobe: %s: %m\n", what);
}

static bool write_all(int file, const char *data, size_t size)
{
    while (size > 0)
    {
        const ssize_t written = write(file, data, size);
        if (written < 0 && errno != EINTR)
        {
            return false;
        }
        if (written > 0)
        {
            data += written;
            size -= (size_t)written;
        }
    }
    return true;
}

typedef struct
{
    size_t lines; // that have ended
    bool in_line; // and one that has not
} passed;

// Returns false when there is nothing more to pass on, or nobody to take it.
static bool pass_on(int from, int to, passed *so_far)
{
    char data[DATA_SIZE];
    ssize_t size = 0;
    do
    {
        size = read(from, data, sizeof data);
    } while (size < 0 && errno == EINTR);
    for (ssize_t index = 0; index < size; index++)
    {
        so_far->in_line = data[index] != '\n';
        so_far->lines += so_far->in_line ? 0 : 1;
    }
    return size > 0 && write_all(to, data, (size_t)size);
}

// Says that the probe is gone and passes on its own last words.
static int tell_it_ended(const char *what)
{
    (void)fprintf(stderr, "spareprobe: %s\n", what);
    passed words = {0};
    const int errors = open("err", O_RDONLY | O_CLOEXEC);
    while (errors >= 0 && pass_on(errors, STDERR_FILENO, &words))
    {
    }
    return BROKEN;
}

static pid_t read_pid(void)
{
    char text[32] = "";
    const int file = open("pid", O_RDONLY | O_CLOEXEC);
    const ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
    {
        (void)close(file);
    }
    return size <= 0 ? -1 : (pid_t)strtol(text, NULL, 10);
}

static bool write_pid(pid_t probe)
{
    char text[32];
    const int length = snprintf(text, sizeof text, "%d\n", (int)probe);
    const int file = open("pid", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return file >= 0 && write_all(file, text, (size_t)length) && close(file) == 0;
}

// In the folder of a spare probe that is ours now: be its stdin and stdout until all that was asked is answered.
static int serve(void)
{
    const pid_t probe = read_pid();
    const int questions = open("in", O_WRONLY | O_NONBLOCK | O_CLOEXEC); // without a reader this fails, not waits
    const int answers = open("out", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (probe <= 0 || questions < 0 || answers < 0 || fcntl(questions, F_SETFL, 0) != 0)
    {
        return tell_it_ended("the spare probe is gone");
    }
    (void)signal(SIGPIPE, SIG_IGN);
    passed asked = {0};
    passed answered = {0};
    enum
    {
        ANSWERS,
        QUESTIONS,
        LISTENER,
        COUNT,
    };
    struct pollfd watched[COUNT] = {
        [ANSWERS] = {.fd = answers, .events = POLLIN},
        [QUESTIONS] = {.fd = STDIN_FILENO, .events = POLLIN},
        [LISTENER] = {.fd = STDOUT_FILENO}, // tells when nobody listens any more
    };
    while (watched[QUESTIONS].fd >= 0 || answered.lines < asked.lines)
    {
        if (poll(watched, COUNT, -1) < 0)
        {
            continue; // a signal
        }
        if (watched[ANSWERS].revents != 0 && !pass_on(answers, STDOUT_FILENO, &answered))
        {
            (void)kill(probe, SIGTERM);
            return tell_it_ended("the spare probe is gone");
        }
        if (watched[LISTENER].revents != 0)
        {
            break;
        }
        if (watched[QUESTIONS].revents != 0 && !pass_on(STDIN_FILENO, questions, &asked))
        {
            watched[QUESTIONS].fd = -1;
            // The last question needs no line end, but the probe does not see the end of its input.
            asked.lines += asked.in_line && write_all(questions, "\n", 1) ? 1 : 0;
        }
    }
    // It holds both ends of its input, so it never sees the end of it.
    return kill(probe, SIGTERM) == 0 ? 0 : BROKEN;
}

static bool take_over(int *status)
{
    char spare[PATH_SIZE];
    char ours[PATH_SIZE];
    char suffix[32];
    (void)snprintf(suffix, sizeof suffix, ".%d", (int)getpid());
    spare_path(spare, "");
    spare_path(ours, suffix);
    if (rename(spare, ours) != 0 || chdir(ours) != 0)
    {
        return false;
    }
    *status = serve();
    return true;
}

static _Noreturn void become_probe(const char *const arguments[])
{
    const char *command[64] = {"wine64", set_or("HPPROBE_PROGRAM", "C:\\hil\\hpprobe.exe")};
    for (size_t count = 0; count + 3 < sizeof command / sizeof *command && arguments[count] != NULL; count++)
    {
        command[count + 2] = arguments[count];
    }
    (void)execvp(command[0], (char *const *)command);
    say("cannot run wine64");
    _exit(127);
}

// In the folder of a spare to be.
static bool start_probe(void)
{
    if (mkfifo("in", 0600) != 0 || mkfifo("out", 0600) != 0)
    {
        return false;
    }
    // Both ways, so that opening them waits for nobody and the probe's input does not end.
    const int questions = open("in", O_RDWR | O_CLOEXEC);
    const int answers = open("out", O_RDWR | O_CLOEXEC);
    const int errors = open("err", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const pid_t probe = questions < 0 || answers < 0 || errors < 0 ? -1 : fork();
    if (probe == 0)
    {
        const char *const arguments[] = {"--loop", NULL};
        (void)setsid();
        if (dup2(questions, STDIN_FILENO) < 0 || dup2(answers, STDOUT_FILENO) < 0 || dup2(errors, STDERR_FILENO) < 0)
        {
            _exit(BROKEN);
        }
        become_probe(arguments);
    }
    // Only the probe is to hold them, so that they end with it.
    (void)close(questions);
    (void)close(answers);
    (void)close(errors);
    return probe > 0 && write_pid(probe);
}

// Asks the probe that was just started, and prints what it answers.
static bool ask_once(void)
{
    char answer[DATA_SIZE];
    const int answers = open("out", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    const int questions = open("in", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    FILE *lines = answers < 0 || fcntl(answers, F_SETFL, 0) != 0 ? NULL : fdopen(answers, "r");
    return lines != NULL && write_all(questions, "\n", 1) && fgets(answer, sizeof answer, lines) != NULL &&
           fputs(answer, stdout) >= 0 && fflush(stdout) == 0;
}

// Returns false when somebody else is at it, or was and failed.
static bool leave_spare(int *status)
{
    char spare[PATH_SIZE];
    char unready[PATH_SIZE];
    spare_path(spare, "");
    spare_path(unready, ".new");
    if (mkdir(unready, 0700) != 0 || chdir(unready) != 0)
    {
        return false;
    }
    *status = 0;
    if (!start_probe() || !ask_once())
    {
        *status = tell_it_ended("the probe does not start");
    }
    else if (rename(unready, spare) != 0)
    {
        say("cannot keep the spare probe");
        *status = BROKEN;
    }
    return true;
}

// The probe has Wine save its registry; the files of this system are nothing that a Windows program can save.
static int save(const char *const arguments[])
{
    int status = 0;
    const pid_t probe = fork();
    if (probe == 0)
    {
        become_probe(arguments);
    }
    if (probe < 0 || waitpid(probe, &status, 0) != probe)
    {
        say("cannot wait for the probe");
        return BROKEN;
    }
    sync();
    return WIFEXITED(status) ? WEXITSTATUS(status) : BROKEN;
}

int main(int count, char *arguments[])
{
    int status = BROKEN;
    const bool once = count == 1;
    const bool loop = count == 2 && strcmp(arguments[1], "--loop") == 0;
    if (count == 2 && strcmp(arguments[1], "--save") == 0)
    {
        return save((const char *const *)arguments + 1);
    }
    if ((once && leave_spare(&status)) || (loop && take_over(&status)))
    {
        return status;
    }
    become_probe((const char *const *)arguments + 1);
}
