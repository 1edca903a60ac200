#include "base/config.h"
#include "unit.h"

#include <sched.h>
#include <stdlib.h>

static struct config config;

static int clear(void **state)
{
    (void)state;
    unsetenv("STEEP_WORKERS");
    unsetenv("STEEP_CONNECTIONS");
    unsetenv("STEEP_DEADLINE");
    unsetenv("STEEP_DATABASE_WAIT");
    unsetenv("STEEP_STALENESS");
    return 0;
}

static bool accepts(const char *variable, const char *value)
{
    setenv(variable, value, 1);
    return config_read(&config, 8);
}

static void assert_all_refused(const char *variable, const char *values)
{
    char value[LISTED_BYTES];

    while (next_listed(&values, value)) {
        if (accepts(variable, value))
            fail_msg("accepted: %s=%s", variable, value);
    }
}

static void has_defaults_for_what_is_unset_or_empty(void **state)
{
    (void)state;
    assert_true(config_read(&config, 8));
    assert_true(accepts("STEEP_WORKERS", ""));
    assert_int_equal(config.workers, 32);
    assert_int_equal(config.deadline_ms, 20000);
    assert_int_equal(config.wait_ms, 8000);
    assert_int_equal(config.staleness_ms, 30000);
}

static void bounds_the_number_of_workers(void **state)
{
    (void)state;
    assert_all_refused("STEEP_WORKERS", "0|257|-1|+4|x|4x|1.5| 4|4 |99999999999999999999");
    assert_true(accepts("STEEP_WORKERS", "1"));
    assert_int_equal(config.workers, 1);
    assert_true(accepts("STEEP_WORKERS", "256"));
    assert_int_equal(config.workers, 256);
}

static void has_a_connection_for_each_core_and_at_least_two(void **state)
{
    cpu_set_t all;
    cpu_set_t one;
    int cores;
    size_t first = 0;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    cores = CPU_COUNT(&all);
    assert_true(config_read(&config, 8));
    assert_int_equal(config.connections, cores < 2 ? 2 : cores > 256 ? 256 : cores);

    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_true(config_read(&config, 8));
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
    assert_int_equal(config.connections, 2);
}

static void bounds_the_number_of_connections(void **state)
{
    (void)state;
    assert_all_refused("STEEP_CONNECTIONS", "0|257|-1|+4|x|4x|1.5| 4|4 |99999999999999999999");
    assert_true(accepts("STEEP_CONNECTIONS", "1"));
    assert_int_equal(config.connections, 1);
    assert_true(accepts("STEEP_CONNECTIONS", "256"));
    assert_int_equal(config.connections, 256);
}

static void bounds_the_deadline(void **state)
{
    (void)state;
    assert_all_refused("STEEP_DEADLINE", "1|601|-20|x|20s");
    assert_true(accepts("STEEP_DEADLINE", "2"));
    assert_int_equal(config.deadline_ms, 2000);
    assert_true(accepts("STEEP_DEADLINE", "600"));
    assert_int_equal(config.deadline_ms, 600000);
}

static void bounds_the_wait_for_the_database(void **state)
{
    (void)state;
    assert_all_refused("STEEP_DATABASE_WAIT", "-1|61|x|8s");
    assert_true(accepts("STEEP_DATABASE_WAIT", "0"));
    assert_int_equal(config.wait_ms, 0);
    assert_true(accepts("STEEP_DATABASE_WAIT", "60"));
    assert_int_equal(config.wait_ms, 60000);
}

static void bounds_the_lag_of_a_standby(void **state)
{
    (void)state;
    assert_all_refused("STEEP_STALENESS", "-1|0|9|86401|x|30s");
    assert_true(accepts("STEEP_STALENESS", "10"));
    assert_int_equal(config.staleness_ms, 10000);
    assert_true(accepts("STEEP_STALENESS", "86400"));
    assert_int_equal(config.staleness_ms, 86400000);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, clear)
    const struct CMUnitTest tests[] = {
        TEST(has_defaults_for_what_is_unset_or_empty),
        TEST(bounds_the_number_of_workers),
        TEST(has_a_connection_for_each_core_and_at_least_two),
        TEST(bounds_the_number_of_connections),
        TEST(bounds_the_deadline),
        TEST(bounds_the_wait_for_the_database),
        TEST(bounds_the_lag_of_a_standby),
    };

    return cmocka_run_group_tests_name("config", tests, clear, NULL);
}
