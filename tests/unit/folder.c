#include "folder.h"
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char LOG[] = "log";

static char path[64];
static int folder = -1;
static int standard_error = -1;

int folder_make(void **state)
{
    int log;

    (void)state;
    strcpy(path, "/dev/shm/steep-unit.XXXXXX");
    if (mkdtemp(path) == NULL) {
        strcpy(path, "/tmp/steep-unit.XXXXXX");
        if (mkdtemp(path) == NULL)
            return -1;
    }
    folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    log = openat(folder, LOG, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (standard_error < 0)
        standard_error = dup(STDERR_FILENO);
    return folder < 0 || log < 0 || dup2(log, STDERR_FILENO) < 0 || close(log) != 0 ? -1 : 0;
}

static void remove_files(bool with_log)
{
    DIR *directory = opendir(path);
    struct dirent *entry;

    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.' && (with_log || strcmp(entry->d_name, LOG) != 0))
            assert_int_equal(unlinkat(folder, entry->d_name, 0), 0);
    }
    closedir(directory);
}

int folder_remove(void **state)
{
    (void)state;
    dup2(standard_error, STDERR_FILENO);
    remove_files(true);
    close(folder);
    return rmdir(path);
}

const char *folder_path(void)
{
    return path;
}

int folder_file(void)
{
    return folder;
}

void folder_empty(void)
{
    remove_files(false);
}

void folder_write(const char *name, const void *bytes, size_t length)
{
    int file = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(file >= 0);
    assert_int_equal(write(file, bytes, length), length);
    close(file);
}

size_t folder_read(const char *name, void *bytes, size_t size)
{
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    assert_true(file >= 0);
    length = read(file, bytes, size);
    assert_true(length >= 0 && (size_t)length < size);
    close(file);
    return (size_t)length;
}

bool folder_logged(const char *text)
{
    static char log[1024 * 1024];

    log[folder_read(LOG, log, sizeof(log) - 1)] = '\0';
    return strstr(log, text) != NULL;
}

void folder_forget_log(void)
{
    assert_int_equal(ftruncate(STDERR_FILENO, 0), 0);
}
