#include "keys.h"

#include "auth/signature.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char PRIVATE[] = "key.priv";
static const char PUBLIC[] = "key.pub";

_Static_assert(KEYS_SECRET_BYTES == crypto_sign_SECRETKEYBYTES, "Ed25519 keys are 64 bytes");

/* Reads the seed from an open file. Returns NULL, or what is wrong with it. */
static const char *read_seed(int file, unsigned char seed[static crypto_sign_SEEDBYTES])
{
    struct stat status;

    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode))
        return "not a regular file";
    if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return "other users can access the private key; run chmod 600, or make a new one";
    if (status.st_size != crypto_sign_SEEDBYTES ||
        read(file, seed, crypto_sign_SEEDBYTES) != crypto_sign_SEEDBYTES)
        return "not a private key, which is a file of 32 bytes";
    return NULL;
}

const char *keys_read(struct keys *keys, const char *path)
{
    unsigned char seed[crypto_sign_SEEDBYTES];
    unsigned char public[crypto_sign_PUBLICKEYBYTES];
    int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    const char *problem;

    if (file < 0)
        return errno == ENOENT ? "no private key; make one with steep-monitor keygen"
                               : strerror(errno);
    problem = read_seed(file, seed);
    close(file);
    if (problem == NULL && crypto_sign_seed_keypair(public, keys->secret, seed) != 0)
        problem = "invalid private key";
    sodium_memzero(seed, sizeof(seed));
    return problem;
}

void keys_wipe(struct keys *keys)
{
    sodium_memzero(keys, sizeof(*keys));
}

void keys_sign(const struct keys *keys, const char *body, size_t length,
               char text[static KEYS_SIGNATURE_TEXT_BYTES + 1])
{
    unsigned char signature[crypto_sign_BYTES];

    crypto_sign_detached(signature, NULL, (const unsigned char *)body, length, keys->secret);
    sodium_bin2base64(text, KEYS_SIGNATURE_TEXT_BYTES + 1, signature, sizeof(signature),
                      sodium_base64_VARIANT_ORIGINAL);
}

static int fail(const char *folder, const char *name, const char *why)
{
    fprintf(stderr, "steep-monitor: cannot create %s%s%s: %s\n", folder, *name == '\0' ? "" : "/",
            name, why);
    return EXIT_FAILURE;
}

/* Writes a file that must not exist. */
static bool write_new(int folder, const char *name, mode_t mode, const void *bytes, size_t length)
{
    int file = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    bool is_written;
    int error;

    if (file < 0)
        return false;
    is_written =
        files_write(file, bytes, length, -1) && fchmod(file, mode) == 0 && fsync(file) == 0;
    error = errno;
    close(file);
    if (!is_written)
        unlinkat(folder, name, 0);
    errno = error;
    return is_written;
}

/* Writes both files, or neither. */
static int write_pair(int folder, const char *path, const unsigned char *seed, const char *public)
{
    static const char EXISTS[] = "file exists, not overwritten";
    char line[SIGNATURE_KEY_TEXT_BYTES + 2];
    size_t length = (size_t)snprintf(line, sizeof(line), "%s\n", public);

    if (faccessat(folder, PUBLIC, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return fail(path, PUBLIC, EXISTS);
    if (!write_new(folder, PRIVATE, 0600, seed, crypto_sign_SEEDBYTES))
        return fail(path, PRIVATE, errno == EEXIST ? EXISTS : strerror(errno));
    if (!write_new(folder, PUBLIC, 0644, line, length)) {
        const char *why = errno == EEXIST ? EXISTS : strerror(errno);

        unlinkat(folder, PRIVATE, 0);
        return fail(path, PUBLIC, why);
    }
    if (fsync(folder) != 0)
        return fail(path, PRIVATE, strerror(errno));
    return EXIT_SUCCESS;
}

/* Prints how to register the key: the last line is the command, its name quoted for a shell. */
static void print_command(const char *source, const char *public)
{
    fputs("Register the key on the server:\nsteepctl monitor add '", stdout);
    for (; *source != '\0'; source++) {
        if (*source == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*source);
    }
    printf("' %s\n", public);
}

int keys_generate(const char *folder, const char *source)
{
    unsigned char seed[crypto_sign_SEEDBYTES];
    unsigned char public[crypto_sign_PUBLICKEYBYTES];
    unsigned char secret[crypto_sign_SECRETKEYBYTES];
    char text[SIGNATURE_KEY_TEXT_BYTES + 1];
    int file = files_open_path(folder);
    int status;

    if (file < 0)
        return fail(folder, "", strerror(errno));
    randombytes_buf(seed, sizeof(seed));
    crypto_sign_seed_keypair(public, secret, seed);
    signature_format_key(public, text);
    status = write_pair(file, folder, seed, text);
    sodium_memzero(seed, sizeof(seed));
    sodium_memzero(secret, sizeof(secret));
    close(file);
    if (status == EXIT_SUCCESS)
        print_command(source, text);
    return status;
}
