/* The one file that people drop beside their app: it unpacks the program that follows it and becomes that program.
 *
 * Law: no process stays behind. execve keeps the process id, so signals, the exit status, sd_notify, LISTEN_PID
 * and being process 1 need nobody to pass them on. The program removes what was unpacked when it ends; what a
 * killed one left is removed by the next start.
 *
 * After this executable comes what packaging/binary.py appended (all numbers little endian):
 *   for each file: its content as one LZ4 block; when that would not be smaller, as it is
 *   for each file: u32 stored size, u32 size, u32 Adler-32 of the content, u16 mode, u16 length of name, name
 *   u64 offset of the table, u32 number of files, u32 offset of the interpreter's name in the first file,
 *   u32 room for that name, 12 bytes magic
 * The first file is the program. It names the dynamic linker by an absolute path, which is known only now.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MAGIC "sidecar\1pack"
#define PREFIX "sidecar-"
#define LINKER "/ld.so"
#define DAMAGED "this file is damaged", "copy it here again"

struct trailer {
    uint64_t table;
    uint32_t files, interpreter, room;
    char magic[12];
};

struct entry {
    uint32_t stored, size, check;
    uint16_t mode, name;
};

struct pack {
    const uint8_t *data, *table, *end;
    struct trailer trailer;
    uint64_t total; /* bytes that unpacking takes */
    uint32_t largest;
};

/* What was tried and why it failed, for the one line that is said when nothing works. */
static char reasons[1024];

static void note(const char *place, const char *reason)
{
    size_t used = strlen(reasons);
    snprintf(reasons + used, sizeof reasons - used, "%s%s %s", used ? ", " : "", place, reason);
}

static _Noreturn void refuse(const char *what, const char *remedy)
{
    fprintf(stderr, "sidecar: %s: %s\n", what, remedy);
    exit(1);
}

/* LZ4 block format: a token, literals, an offset back and a length, again and again. 0: not a valid block of
 * exactly `size` bytes. Nothing is read or written outside of the two buffers, whatever the block says. */
static int length(const uint8_t **from, const uint8_t *end, size_t *n)
{
    uint8_t more = 255;
    while (more == 255) {
        if (*from == end)
            return 0;
        more = *(*from)++;
        *n += more;
    }
    return 1;
}

static int expand(const uint8_t *from, size_t stored, uint8_t *to, size_t size)
{
    const uint8_t *end = from + stored;
    uint8_t *start = to, *stop = to + size;
    while (from < end) {
        uint8_t token = *from++;
        size_t n = token >> 4;
        if (n == 15 && !length(&from, end, &n))
            return 0;
        if (n > (size_t)(end - from) || n > (size_t)(stop - to))
            return 0;
        memcpy(to, from, n);
        to += n;
        from += n;
        if (from == end)
            return to == stop; /* the last sequence has literals only */
        if (end - from < 2)
            return 0;
        size_t back = from[0] | from[1] << 8;
        from += 2;
        n = token & 15;
        if (n == 15 && !length(&from, end, &n))
            return 0;
        n += 4;
        if (!back || back > (size_t)(to - start) || n > (size_t)(stop - to))
            return 0;
        if (back >= n)
            memcpy(to, to - back, n), to += n;
        else
            for (; n; n--, to++)
                *to = to[-(ptrdiff_t)back];
    }
    return 0;
}

static uint32_t adler(const uint8_t *at, size_t left)
{
    uint32_t a = 1, b = 0;
    while (left) {
        size_t run = left < 5552 ? left : 5552; /* the most that cannot overflow */
        left -= run;
        while (run--)
            a += *at++, b += a;
        a %= 65521;
        b %= 65521;
    }
    return b << 16 | a;
}

/* The next entry of the table; its name is copied to `name`. 0: the table is broken. */
static int next(const struct pack *pack, const uint8_t **at, struct entry *entry, char name[PATH_MAX])
{
    if ((size_t)(pack->end - *at) < sizeof *entry)
        return 0;
    memcpy(entry, *at, sizeof *entry);
    *at += sizeof *entry;
    if (entry->name >= PATH_MAX || (size_t)(pack->end - *at) < entry->name)
        return 0;
    memcpy(name, *at, entry->name);
    name[entry->name] = 0;
    *at += entry->name;
    return 1;
}

static int open_pack(struct pack *pack)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0) /* no /proc: the path it was started by will do */
        fd = open((const char *)getauxval(AT_EXECFN), O_RDONLY | O_CLOEXEC);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat))
        refuse("cannot read itself", "mount /proc");
    size_t size = stat.st_size;
    const uint8_t *data = mmap(0, size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED || size < sizeof pack->trailer)
        return 0;
    struct trailer *trailer = &pack->trailer;
    memcpy(trailer, data + size - sizeof *trailer, sizeof *trailer);
    if (memcmp(trailer->magic, MAGIC, sizeof trailer->magic) || trailer->table > size - sizeof *trailer)
        return 0;
    pack->data = data;
    pack->table = data + trailer->table;
    pack->end = data + size - sizeof *trailer;
    const uint8_t *at = pack->table;
    uint64_t stored = 0;
    for (uint32_t i = 0; i < trailer->files; i++) {
        struct entry entry;
        char name[PATH_MAX];
        if (!next(pack, &at, &entry, name))
            return 0;
        stored += entry.stored;
        pack->total += (entry.size + 4095) & ~4095u;
        if (entry.size > pack->largest)
            pack->largest = entry.size;
    }
    if (at != pack->end || stored > trailer->table)
        return 0;
    pack->data = pack->table - stored;
    return 1;
}

/* Remove a directory with all that is in it, as far as it can be removed. */
static void discard(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? 0 : fdopendir(fd);
    for (struct dirent *each; dir && (each = readdir(dir));) {
        if (!strcmp(each->d_name, ".") || !strcmp(each->d_name, ".."))
            continue;
        if (unlinkat(fd, each->d_name, 0) && errno == EISDIR)
            discard(fd, each->d_name);
    }
    if (dir)
        closedir(dir);
    unlinkat(parent, name, AT_REMOVEDIR);
}

static int is_empty(int fd)
{
    int found = 0;
    DIR *dir = fdopendir(dup(fd));
    for (struct dirent *each; dir && !found && (each = readdir(dir));)
        found = strcmp(each->d_name, ".") && strcmp(each->d_name, "..");
    if (dir)
        closedir(dir);
    return !found;
}

/* What copies that were killed have left here: ours, and locked by nobody. An empty one may be somebody's who
 * is about to lock it; before that nothing is put in. */
static void discard_stale(int place)
{
    DIR *dir = fdopendir(dup(place));
    for (struct dirent *each; dir && (each = readdir(dir));) {
        struct stat stat;
        if (strncmp(each->d_name, PREFIX, strlen(PREFIX)) || strlen(each->d_name) != strlen(PREFIX) + 16)
            continue;
        int left = openat(place, each->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (left < 0)
            continue;
        if (!fstat(left, &stat) && stat.st_uid == geteuid() && !flock(left, LOCK_EX | LOCK_NB) && !is_empty(left))
            discard(place, each->d_name);
        close(left);
    }
    if (dir)
        closedir(dir);
}

static int write_all(int fd, const uint8_t *data, size_t size)
{
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        data += n;
        size -= n;
    }
    return 1;
}

/* Make the directories on the way to `name`. */
static int make_way(int root, char *name)
{
    for (char *slash = name; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        int failed = mkdirat(root, name, 0700) && errno != EEXIST;
        *slash = '/';
        if (failed)
            return 0;
    }
    return 1;
}

/* Unpack everything into `root`, whose path is `path`. 0 with errno: EBADMSG is damage, else it cannot be written. */
static int unpack(const struct pack *pack, int root, const char *path, uint8_t *buffer)
{
    const uint8_t *at = pack->table, *data = pack->data;
    for (uint32_t i = 0; i < pack->trailer.files; i++) {
        struct entry entry;
        char name[PATH_MAX];
        next(pack, &at, &entry, name);
        int valid = 1;
        if (entry.stored == entry.size)
            memcpy(buffer, data, entry.size);
        else
            valid = expand(data, entry.stored, buffer, entry.size);
        const struct trailer *trailer = &pack->trailer;
        if (!i && (uint64_t)trailer->interpreter + trailer->room > entry.size)
            valid = 0;
        if (!valid || adler(buffer, entry.size) != entry.check) {
            errno = EBADMSG;
            return 0;
        }
        data += entry.stored;
        if (!i) {
            memset(buffer + trailer->interpreter, 0, trailer->room);
            memcpy(buffer + trailer->interpreter, path, strlen(path));
            memcpy(buffer + trailer->interpreter + strlen(path), LINKER, strlen(LINKER));
        }
        if (!make_way(root, name))
            return 0;
        int fd = openat(root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, entry.mode);
        if (fd < 0)
            return 0;
        int written = write_all(fd, buffer, entry.size);
        int error = errno;
        written &= !close(fd);
        if (!written) {
            errno = error;
            return 0;
        }
    }
    return 1;
}

/* Unpack into a new directory below `place` and become the program. Returns when this place will not do. */
static void start_in(const char *place, const struct pack *pack, uint8_t *buffer, char **argv)
{
    struct statvfs system;
    char path[PATH_MAX];
    uint64_t random;
    int parent = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0 || fstatvfs(parent, &system)) {
        note(place, errno == ENOENT ? "does not exist" : strerror(errno));
        return;
    }
    if (system.f_flag & ST_NOEXEC) {
        note(place, "is mounted noexec");
        return;
    }
    if (strlen(place) + sizeof "/" PREFIX + 16 + sizeof LINKER > pack->trailer.room) {
        note(place, "has too long a path");
        return;
    }
    discard_stale(parent);
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
        random = (uint64_t)getpid() << 32 ^ (uint64_t)clock() ^ (uint64_t)time(0) << 20;
    snprintf(path, sizeof path, "%s/" PREFIX "%016llx", place, (unsigned long long)random);
    const char *name = strrchr(path, '/') + 1;
    if (mkdirat(parent, name, 0700)) {
        note(place, errno == EROFS ? "is read-only" : errno == EACCES ? "may not be written to" : strerror(errno));
        return;
    }
    /* Stays open, and locked, for the life of the program: so others know that it is in use. */
    int root = openat(parent, name, O_RDONLY | O_DIRECTORY);
    if (root >= 0 && !flock(root, LOCK_EX) && unpack(pack, root, path, buffer)) {
        strcat(path, "/sidecar");
        execv(path, argv);
    }
    int error = errno;
    discard(parent, name);
    if (error == EBADMSG)
        refuse(DAMAGED);
    note(place, error == ENOSPC ? "is full" : strerror(error));
    if (root >= 0)
        close(root);
    close(parent);
}

/* The path by which a new version is started: as it was named, so that a link may be pointed elsewhere. */
static void remember_path(void)
{
    const char *given = (const char *)getauxval(AT_EXECFN);
    char path[2 * PATH_MAX], here[PATH_MAX];
    if (given && *given == '/')
        setenv("SIDECAR_EXECUTABLE", given, 1);
    else if (given && getcwd(here, sizeof here)) {
        snprintf(path, sizeof path, "%s/%s", here, given);
        setenv("SIDECAR_EXECUTABLE", path, 1);
    }
}

/* Until the program has its handlers, signals wait: the default of most would be to end it, and process 1
 * would not even be told. */
static void hold_signals(void)
{
    static const int held[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        sigaddset(&set, held[i]);
    sigprocmask(SIG_BLOCK, &set, 0);
}

/* A closed standard stream must not become one of our files: it stays one that nothing can be read from or
 * written to, except that what goes to stderr may be lost without an error. */
static void hold_standard_streams(void)
{
    int closed[3], any = 0, ends[2];
    for (int fd = 0; fd < 3; fd++)
        any |= closed[fd] = fcntl(fd, F_GETFD) < 0;
    if (!any || pipe(ends))
        return;
    int nothing = fcntl(ends[0], F_DUPFD, 3);
    close(ends[0]);
    close(ends[1]);
    for (int fd = 0; fd < 3; fd++)
        /* The lowest free number is taken: it is `fd`. */
        if (closed[fd] && (fd < 2 || open("/dev/null", O_WRONLY) < 0))
            dup2(nothing, fd);
    close(nothing);
}

int main(int argc, char **argv)
{
    (void)argc;
    hold_standard_streams();
    hold_signals();
    struct pack pack = {0};
    if (!open_pack(&pack))
        refuse(DAMAGED);
    uint8_t *buffer = malloc(pack.largest);
    if (!buffer)
        refuse("no memory to unpack", "raise the limit");
    remember_path();
    const char *places[] = {getenv("TMPDIR"), "/tmp", "/dev/shm", getenv("XDG_RUNTIME_DIR"), "/run"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (places[i] && *places[i] == '/' && (!i || !places[0] || strcmp(places[i], places[0])))
            start_in(places[i], &pack, buffer, argv);
    fprintf(stderr,
            "sidecar: no place to unpack %llu MB: %s: mount a writable tmpfs without noexec at /tmp, or name a "
            "directory in TMPDIR\n",
            (unsigned long long)(pack.total + 999999) / 1000000, reasons);
    return 1;
}
