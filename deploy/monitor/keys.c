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

/* Reads the seed of an open file; NULL, or why it can't be taken. */
static const char *read_seed(int file, unsigned char seed[static crypto_sign_SEEDBYTES])
{
    struct stat status;

    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode))
        return "it is not a file";
    if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return "others can read the private key; chmod 600 it, or make a new one";
    if (status.st_size != crypto_sign_SEEDBYTES ||
        read(file, seed, crypto_sign_SEEDBYTES) != crypto_sign_SEEDBYTES)
        return "a private key is a file of 32 bytes";
    return NULL;
}

const char *keys_read(struct keys *keys, const char *path)
{
    unsigned char seed[crypto_sign_SEEDBYTES];
    unsigned char public[crypto_sign_PUBLICKEYBYTES];
    int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    const char *objection;

    if (file < 0)
        return errno == ENOENT ? "there is no private key; make one with steep-monitor keygen"
                               : strerror(errno);
    objection = read_seed(file, seed);
    close(file);
    if (objection == NULL && crypto_sign_seed_keypair(public, keys->secret, seed) != 0)
        objection = "the key can't be used";
    sodium_memzero(seed, sizeof(seed));
    return objection;
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

static int complain(const char *folder, const char *name, const char *why)
{
    fprintf(stderr, "steep-monitor: %s/%s: %s\n", folder, name, why);
    return EXIT_FAILURE;
}

/* Writes a file that must not be there yet. */
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
    static const char THERE[] = "it is there already, and stays as it is";
    char line[SIGNATURE_KEY_TEXT_BYTES + 2];
    size_t length = (size_t)snprintf(line, sizeof(line), "%s\n", public);

    if (faccessat(folder, PUBLIC, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return complain(path, PUBLIC, THERE);
    if (!write_new(folder, PRIVATE, 0600, seed, crypto_sign_SEEDBYTES))
        return complain(path, PRIVATE, errno == EEXIST ? THERE : strerror(errno));
    if (!write_new(folder, PUBLIC, 0644, line, length)) {
        const char *why = errno == EEXIST ? THERE : strerror(errno);

        unlinkat(folder, PRIVATE, 0);
        return complain(path, PUBLIC, why);
    }
    if (fsync(folder) != 0)
        return complain(path, PRIVATE, strerror(errno));
    return EXIT_SUCCESS;
}

/* The command that registers the key, for a shell: a quote in the name is one of its own. */
static void print_command(const char *source, const char *public)
{
    fputs("steepctl monitor add '", stdout);
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
        return complain(folder, "", strerror(errno));
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
