#include "db/hosts.h"

#include "base/clock.h"
#include "base/log.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    LISTS = 3, /* names, addresses, ports */
    AVOIDED_MS = 10000,
    AGE_MOST_MS = 30000,
};

static const char *const KEYWORDS[LISTS] = {"host", "hostaddr", "port"};

enum host_state { HOST_GOOD, HOST_SILENT, HOST_BEHIND };

static struct host {
    const char *parameters[LISTS];
    enum host_state state;
    int64_t retry_at; /* clock_ms: when the next one tries it, unless it is good */
    int epoch;
    bool is_replaced; /* it is silent, and another one accepted a session since */
} hosts[HOSTS_MOST];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int count = 1;
static const char *attributes; /* target_session_attrs as given; NULL for libpq's default */
static int64_t age_most_us = AGE_MOST_MS * INT64_C(1000);

/* Counts the elements of a list; 0 if one is empty, which stands for a default of libpq's. */
static int count_elements(const char *list)
{
    int commas = 0;

    for (const char *at = list; *at != '\0'; at++) {
        if (*at == ',' && (at == list || at[1] == ',' || at[1] == '\0'))
            return 0;
        commas += *at == ',';
    }
    return commas + 1;
}

/* Splits the lists, which the hosts then use until the process ends; false as hosts.h says. */
static bool split(char *lists[LISTS])
{
    int most = 1;

    for (int i = 0; i < LISTS; i++) {
        int n = lists[i] != NULL ? count_elements(lists[i]) : 1;

        if (n == 0 || n > HOSTS_MOST)
            return false;
        if (i < 2 && n > most)
            most = n;
    }
    for (int i = 0; i < LISTS; i++) {
        int n = lists[i] != NULL ? count_elements(lists[i]) : 1;

        /* Only a port may be for all hosts. */
        if (lists[i] != NULL && n != most && (i < 2 || n > 1))
            return false;
    }
    for (int i = 0; i < LISTS; i++) {
        char *rest = lists[i];
        char *element = rest != NULL ? strsep(&rest, ",") : NULL;

        for (int host = 0; host < most; host++) {
            hosts[host].parameters[i] = element;
            if (rest != NULL)
                element = strsep(&rest, ",");
        }
    }
    count = most;
    return true;
}

/* What libpq would use: the environment, or the service that it names. */
static void read_hosts(void)
{
    PQconninfoOption *options = PQconndefaults();
    char *lists[LISTS] = {NULL};
    char *wanted = NULL;

    for (const PQconninfoOption *option = options; option != NULL && option->keyword != NULL;
         option++) {
        if (option->val == NULL || *option->val == '\0')
            continue;
        for (int i = 0; i < LISTS; i++) {
            if (strcmp(option->keyword, KEYWORDS[i]) == 0)
                lists[i] = strdup(option->val);
        }
        if (strcmp(option->keyword, "target_session_attrs") == 0)
            wanted = strdup(option->val);
    }
    PQconninfoFree(options);
    if (split(lists) && count > 1) {
        attributes = wanted;
        return;
    }
    count = 1;
    hosts[0] = (struct host){.parameters = {NULL}};
    free(wanted);
    for (int i = 0; i < LISTS; i++)
        free(lists[i]);
}

void hosts_limit_age(int ms)
{
    age_most_us = ms * INT64_C(1000);
}

int hosts_count(void)
{
    pthread_once(&once, read_hosts);
    return count;
}

/* Whether not to try a host now. One caller every AVOIDED_MS may. */
static bool is_avoided(struct host *host, int64_t now)
{
    if (host->state == HOST_GOOD)
        return false;
    if (now < host->retry_at)
        return true;
    host->retry_at = now + AVOIDED_MS;
    return false;
}

static struct hosts_choice choose(int host, const char *wanted)
{
    return (struct hosts_choice){.host = host,
                                 .name = hosts[host].parameters[0],
                                 .address = hosts[host].parameters[1],
                                 .port = hosts[host].parameters[2],
                                 .attributes = wanted};
}

static struct hosts_choice choose_second(int host, const char *wanted)
{
    struct hosts_choice choice = choose(host, wanted);

    choice.is_second = true;
    return choice;
}

/* As libpq does it: standbys first, and then any. What is not a standby then is the primary. */
static int choose_standby_first(struct hosts_choice *choices, const bool *avoided)
{
    int chosen = 0;

    for (int host = 0; host < count; host++) {
        if (!avoided[host])
            choices[chosen++] = choose(host, "standby");
    }
    for (int host = 0; host < count; host++) {
        choices[chosen++] = choose_second(host, "primary");
    }
    for (int host = 0; host < count; host++) {
        if (avoided[host] && hosts[host].state == HOST_SILENT)
            choices[chosen++] = choose(host, "standby");
    }
    return chosen;
}

/* One that is behind may have been promoted. */
static int choose_primary_first(struct hosts_choice *choices, const bool *avoided)
{
    int chosen = 0;

    for (int host = 0; host < count; host++) {
        if (!avoided[host] || hosts[host].state == HOST_BEHIND)
            choices[chosen++] = choose(host, "primary");
    }
    for (int host = 0; host < count; host++) {
        if (!avoided[host])
            choices[chosen++] = choose_second(host, "standby");
    }
    for (int host = 0; host < count; host++) {
        if (avoided[host] && hosts[host].state == HOST_SILENT) {
            choices[chosen++] = choose(host, "primary");
            choices[chosen++] = choose_second(host, "standby");
        }
    }
    return chosen;
}

/* Compares a value of target_session_attrs; NULL is libpq's default. */
static bool has_value(const char *given, const char *value)
{
    return given != NULL && strcmp(given, value) == 0;
}

int hosts_choose(struct hosts_choice choices[static HOSTS_CHOICES_MOST], bool prefers_primary)
{
    bool avoided[HOSTS_MOST];
    int64_t now = clock_ms();
    int chosen = 0;

    pthread_once(&once, read_hosts);
    pthread_mutex_lock(&lock);
    for (int host = 0; host < count; host++)
        avoided[host] = is_avoided(&hosts[host], now);
    if (prefers_primary &&
        (has_value(attributes, "prefer-standby") || has_value(attributes, "any"))) {
        chosen = choose_primary_first(choices, avoided);
    } else if (has_value(attributes, "prefer-standby")) {
        chosen = choose_standby_first(choices, avoided);
    } else {
        for (int pass = 0; pass < 2; pass++) {
            for (int host = 0; host < count; host++) {
                if (avoided[host] == (pass == 1))
                    choices[chosen++] = choose(host, attributes);
            }
        }
    }
    pthread_mutex_unlock(&lock);
    return chosen;
}

static void log_host(int host, enum log_level level, const char *detail, int64_t age_us)
{
    const struct host *about = &hosts[host];
    struct log_line line;

    log_begin(&line, level, "host");
    if (about->parameters[0] != NULL || about->parameters[1] != NULL)
        log_string(&line, "host",
                   about->parameters[0] != NULL ? about->parameters[0] : about->parameters[1]);
    if (about->parameters[2] != NULL)
        log_string(&line, "port", about->parameters[2]);
    log_string(&line, "detail", detail);
    if (age_us > 0 && age_us < INT64_MAX)
        log_number(&line, "age_s", age_us / 1000000);
    log_end(&line);
}

/* Called with the lock. */
static void avoid(int host, enum host_state state)
{
    hosts[host].state = state;
    hosts[host].retry_at = clock_ms() + AVOIDED_MS;
    hosts[host].epoch++;
}

void hosts_note_answer(const struct hosts_choice *choice)
{
    struct host *host = &hosts[choice->host];
    bool was_silent;

    pthread_mutex_lock(&lock);
    for (int other = 0; other < count; other++)
        hosts[other].is_replaced = other != choice->host && hosts[other].state == HOST_SILENT;
    was_silent = host->state == HOST_SILENT;
    /* A standby that was behind may have been promoted. */
    if (was_silent || has_value(choice->attributes, "primary"))
        host->state = HOST_GOOD;
    pthread_mutex_unlock(&lock);
    if (was_silent)
        log_host(choice->host, LOG_INFO, "the host answers again", 0);
}

void hosts_note_other(int host)
{
    bool was_silent;

    pthread_mutex_lock(&lock);
    was_silent = hosts[host].state == HOST_SILENT;
    if (was_silent)
        hosts[host].state = HOST_GOOD;
    hosts[host].is_replaced = false;
    pthread_mutex_unlock(&lock);
    if (was_silent)
        log_host(host, LOG_INFO, "the host answers again", 0);
}

void hosts_note_silence(int host)
{
    bool is_change;

    pthread_mutex_lock(&lock);
    is_change = hosts[host].state != HOST_SILENT;
    avoid(host, HOST_SILENT);
    pthread_mutex_unlock(&lock);
    if (is_change)
        log_host(host, LOG_WARNING, "the host does not answer", 0);
}

bool hosts_note_age(int host, int64_t age_us)
{
    bool is_behind = age_us > age_most_us;
    bool was_behind;

    pthread_mutex_lock(&lock);
    was_behind = hosts[host].state == HOST_BEHIND;
    if (is_behind)
        avoid(host, HOST_BEHIND);
    else if (was_behind)
        hosts[host].state = HOST_GOOD;
    pthread_mutex_unlock(&lock);
    if (is_behind && !was_behind)
        log_host(host, LOG_WARNING, "the standby is too far behind to be read", age_us);
    if (!is_behind && was_behind)
        log_host(host, LOG_INFO, "the standby has caught up", 0);
    return is_behind;
}

bool hosts_is_left(int host, int epoch)
{
    bool is_left;

    pthread_mutex_lock(&lock);
    is_left =
        hosts[host].epoch != epoch && (hosts[host].state == HOST_BEHIND || hosts[host].is_replaced);
    pthread_mutex_unlock(&lock);
    return is_left;
}

bool hosts_is_silent(int host)
{
    bool is_silent;

    pthread_mutex_lock(&lock);
    is_silent = hosts[host].state == HOST_SILENT;
    pthread_mutex_unlock(&lock);
    return is_silent;
}

int hosts_epoch(int host)
{
    int epoch;

    pthread_mutex_lock(&lock);
    epoch = hosts[host].epoch;
    pthread_mutex_unlock(&lock);
    return epoch;
}
