#include "db/hosts.c" // NOLINT(bugprone-suspicious-include)
#include "unit.h"

#include <stdio.h>

static struct hosts_choice choices[HOSTS_CHOICES_MOST];

/* Begins anew, as a program that finds the environment as it is. */
static void begin_again(void)
{
    memset(hosts, 0, sizeof(hosts));
    count = 1;
    attributes = NULL;
    hosts_limit_age(30000);
    once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_hosts);
}

/* Begins anew, as a program with this environment; NULL for what is unset. */
static void begin(const char *names, const char *ports, const char *wanted)
{
    static const char *const UNSET[] = {"PGHOSTADDR", "PGSERVICE", "PGHOST", "PGPORT",
                                        "PGTARGETSESSIONATTRS"};

    for (size_t i = 0; i < sizeof(UNSET) / sizeof(UNSET[0]); i++)
        unsetenv(UNSET[i]);
    setenv("PGHOST", names, 1);
    if (ports != NULL)
        setenv("PGPORT", ports, 1);
    if (wanted != NULL)
        setenv("PGTARGETSESSIONATTRS", wanted, 1);
    begin_again();
}

/* The order of what is tried now, as "name:port=attributes" with | between them. */
static void assert_order_of(bool prefers_primary, const char *expected)
{
    char order[1000] = "";
    int chosen = hosts_choose(choices, prefers_primary);

    for (int i = 0; i < chosen; i++) {
        size_t length = strlen(order);

        snprintf(order + length, sizeof(order) - length, "%s%s:%s=%s%s", i > 0 ? "|" : "",
                 choices[i].name != NULL ? choices[i].name : "",
                 choices[i].port != NULL ? choices[i].port : "",
                 choices[i].attributes != NULL ? choices[i].attributes : "",
                 choices[i].is_second ? "*" : "");
    }
    assert_string_equal(order, expected);
}

static void assert_order(const char *expected)
{
    assert_order_of(false, expected);
}

static void one_host_is_left_to_libpq(void **state)
{
    (void)state;
    begin("/run/postgresql", "5433", "read-write");
    assert_int_equal(hosts_count(), 1);
    assert_order(":=");
}

static void each_host_has_its_port_or_that_of_all(void **state)
{
    (void)state;
    begin("a,b", NULL, NULL);
    assert_order("a:5432=any|b:5432=any");
    begin("a,b", "1", "read-write");
    assert_order("a:1=read-write|b:1=read-write");
    begin("a,/b,c", "1,2,3", "primary");
    assert_order("a:1=primary|/b:2=primary|c:3=primary");
}

static void lists_that_do_not_match_are_left_to_libpq(void **state)
{
    static const char *const LISTS_OF[][2] = {
        {"a,,b", NULL},   {",a", NULL},  {"a,", NULL},
        {"a,b", "1,2,3"}, {"a,b", "1,"}, {"1,2,3,4,5,6,7,8,9", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(LISTS_OF) / sizeof(LISTS_OF[0]); i++) {
        begin(LISTS_OF[i][0], LISTS_OF[i][1], "read-write");
        assert_int_equal(hosts_count(), 1);
        assert_order(":=");
    }
}

static void hosts_may_be_addresses_of_which_each_has_its_name(void **state)
{
    (void)state;
    begin("a,b", "1", "primary");
    setenv("PGHOSTADDR", "192.0.2.1,192.0.2.2", 1);
    begin_again();
    assert_order("a:1=primary|b:1=primary");
    assert_string_equal(choices[1].address, "192.0.2.2");
    setenv("PGHOST", "a", 1);
    begin_again();
    assert_int_equal(hosts_count(), 1);
    unsetenv("PGHOSTADDR");
}

static void a_standby_is_preferred_to_the_primary(void **state)
{
    (void)state;
    begin("a,b", "1", "prefer-standby");
    assert_order("a:1=standby|b:1=standby|a:1=primary*|b:1=primary*");
}

static void a_host_that_does_not_answer_comes_last_until_it_does(void **state)
{
    (void)state;
    begin("a,b", "1", "read-write");
    hosts_note_silence(0);
    assert_order("b:1=read-write|a:1=read-write");
    hosts_note_answer(&(struct hosts_choice){.host = 0});
    assert_order("a:1=read-write|b:1=read-write");

    begin("a,b", "1", "prefer-standby");
    hosts_note_silence(0);
    assert_order("b:1=standby|a:1=primary*|b:1=primary*|a:1=standby");
}

static void one_caller_every_10_s_tries_it_first(void **state)
{
    (void)state;
    begin("a,b", "1", "read-write");
    hosts_note_silence(0);
    hosts[0].retry_at = clock_ms();
    assert_order("a:1=read-write|b:1=read-write");
    assert_order("b:1=read-write|a:1=read-write");
}

static void a_standby_that_is_behind_is_not_tried(void **state)
{
    (void)state;
    begin("a,b", "1", "prefer-standby");
    assert_false(hosts_note_age(0, 30000000));
    assert_true(hosts_note_age(0, 30000001));
    assert_order("b:1=standby|a:1=primary*|b:1=primary*");
    assert_true(hosts_note_age(1, INT64_MAX));
    assert_order("a:1=primary*|b:1=primary*");
    assert_false(hosts_note_age(0, 0));
    assert_order("a:1=standby|a:1=primary*|b:1=primary*");
    /* It was promoted. */
    hosts_note_answer(&(struct hosts_choice){.host = 1, .attributes = "primary"});
    assert_order("a:1=standby|b:1=standby|a:1=primary*|b:1=primary*");
}

static void the_primary_may_be_preferred_to_standbys(void **state)
{
    (void)state;
    begin("a,b", "1", "prefer-standby");
    assert_order_of(true, "a:1=primary|b:1=primary|a:1=standby*|b:1=standby*");
    begin("a,b", "1", NULL);
    assert_order_of(true, "a:1=primary|b:1=primary|a:1=standby*|b:1=standby*");
    hosts_note_silence(0);
    assert_order_of(true, "b:1=primary|b:1=standby*|a:1=primary|a:1=standby*");
    assert_true(hosts_note_age(1, INT64_MAX));
    assert_order_of(true, "b:1=primary|a:1=primary|a:1=standby*");
    /* It answers, but still lags. */
    hosts_note_answer(&(struct hosts_choice){.host = 1, .attributes = "standby"});
    assert_order_of(true, "b:1=primary|a:1=primary|a:1=standby*");
}

static void what_has_to_be_one_or_the_other_stays_so(void **state)
{
    static const char *const WANTED[] = {"primary", "read-write", "standby", "read-only"};
    char expected[100];

    (void)state;
    for (size_t i = 0; i < sizeof(WANTED) / sizeof(WANTED[0]); i++) {
        begin("a,b", "1", WANTED[i]);
        snprintf(expected, sizeof(expected), "a:1=%s|b:1=%s", WANTED[i], WANTED[i]);
        assert_order_of(true, expected);
    }
}

static void connections_to_a_standby_that_is_behind_are_left(void **state)
{
    int before;

    (void)state;
    begin("a,b", "1", "prefer-standby");
    before = hosts_epoch(0);
    assert_false(hosts_is_left(0, before));
    assert_true(hosts_note_age(0, INT64_MAX));
    assert_true(hosts_is_left(0, before));
    assert_false(hosts_is_left(0, hosts_epoch(0)));
    assert_false(hosts_is_left(1, hosts_epoch(1)));
}

static void connections_to_a_silent_host_are_left_once_another_serves(void **state)
{
    int before;

    (void)state;
    begin("a,b", "1", "read-write");
    before = hosts_epoch(0);
    hosts_note_silence(0);
    assert_true(hosts_is_silent(0));
    assert_false(hosts_is_left(0, before));
    hosts_note_answer(&(struct hosts_choice){.host = 1});
    assert_true(hosts_is_left(0, before));
    hosts_note_answer(&(struct hosts_choice){.host = 0});
    assert_false(hosts_is_silent(0));
    assert_false(hosts_is_left(0, before));
    hosts_note_silence(0);
    hosts_note_answer(&(struct hosts_choice){.host = 1});
    assert_true(hosts_is_left(0, before));
    hosts_note_other(0);
    assert_false(hosts_is_silent(0));
    assert_false(hosts_is_left(0, before));
    /* That says nothing of its data. */
    assert_true(hosts_note_age(0, INT64_MAX));
    hosts_note_other(0);
    assert_true(hosts_is_left(0, before));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_host_is_left_to_libpq),
        cmocka_unit_test(each_host_has_its_port_or_that_of_all),
        cmocka_unit_test(lists_that_do_not_match_are_left_to_libpq),
        cmocka_unit_test(hosts_may_be_addresses_of_which_each_has_its_name),
        cmocka_unit_test(a_standby_is_preferred_to_the_primary),
        cmocka_unit_test(a_host_that_does_not_answer_comes_last_until_it_does),
        cmocka_unit_test(one_caller_every_10_s_tries_it_first),
        cmocka_unit_test(a_standby_that_is_behind_is_not_tried),
        cmocka_unit_test(the_primary_may_be_preferred_to_standbys),
        cmocka_unit_test(what_has_to_be_one_or_the_other_stays_so),
        cmocka_unit_test(connections_to_a_standby_that_is_behind_are_left),
        cmocka_unit_test(connections_to_a_silent_host_are_left_once_another_serves),
    };

    return cmocka_run_group_tests_name("hosts", tests, NULL, NULL);
}
