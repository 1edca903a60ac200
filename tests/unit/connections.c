#include "process/connections.h"
#include "base/clock.h"
#include "unit.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A listener at an abstract address, and what waits for its connections. */
static struct sockaddr_un address;
static socklen_t address_length;
static int listener;
static struct connections *connections;

static int set_up(void **state)
{
    (void)state;
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address = (struct sockaddr_un){.sun_family = AF_UNIX};
    /* The kernel chooses one. */
    if (bind(listener, (struct sockaddr *)&address, sizeof(address.sun_family)) != 0 ||
        listen(listener, 8) != 0)
        return -1;
    address_length = sizeof(address);
    if (getsockname(listener, (struct sockaddr *)&address, &address_length) != 0)
        return -1;
    connections = connections_new(listener);
    return connections != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    connections_free(connections);
    return close(listener);
}

static int connect_to_it(void)
{
    int peer = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_int_equal(connect(peer, (struct sockaddr *)&address, address_length), 0);
    return peer;
}

static void say(int peer)
{
    assert_int_equal(write(peer, "x", 1), 1);
}

static void hear(int fd)
{
    char byte;

    assert_int_equal(read(fd, &byte, 1), 1);
}

static void gives_a_new_connection_once_something_has_arrived(void **state)
{
    int silent = connect_to_it();
    int peer = connect_to_it();
    int fd;

    (void)state;
    say(peer);
    fd = connections_await(connections);
    hear(fd);
    say(silent);
    close(fd);
    fd = connections_await(connections);
    hear(fd);
    close(fd);
    close(silent);
    close(peer);
}

static void gives_a_kept_connection_for_each_thing_that_arrives(void **state)
{
    int peer = connect_to_it();
    int fd;

    (void)state;
    say(peer);
    fd = connections_await(connections);
    for (int i = 0; i < 3; i++) {
        hear(fd);
        assert_true(connections_reserve(connections));
        connections_keep(connections, fd);
        say(peer);
        assert_int_equal(connections_await(connections), fd);
    }
    close(peer);
    hear(fd);
    assert_true(connections_reserve(connections));
    connections_keep(connections, fd);
    /* Its end is something that arrives. */
    assert_int_equal(connections_await(connections), fd);
    close(fd);
}

static void keeps_so_many_and_no_more(void **state)
{
    (void)state;
    for (int i = 0; i < CONNECTIONS_MOST_IDLE; i++)
        assert_true(connections_reserve(connections));
    assert_false(connections_reserve(connections));
    connections_keep(connections, -1);
    assert_true(connections_reserve(connections));
    assert_false(connections_reserve(connections));
    for (int i = 0; i < CONNECTIONS_MOST_IDLE; i++)
        connections_keep(connections, -1);
}

static void when_draining_accepts_and_keeps_none(void **state)
{
    int peer;

    (void)state;
    assert_true(connections_drain(connections, clock_ms()));
    assert_false(connections_reserve(connections));
    peer = connect_to_it();
    say(peer);
    assert_int_equal(connections_await(connections), CONNECTIONS_END);
    assert_int_equal(connections_await(connections), CONNECTIONS_END);
    close(peer);
}

static void *drain(void *result)
{
    *(bool *)result = connections_drain(connections, clock_ms() + 60000);
    return NULL;
}

static void when_draining_gives_what_arrives_on_kept_ones_first(void **state)
{
    int pair[2];
    bool is_drained = false;
    pthread_t thread;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_true(connections_reserve(connections));
    connections_keep(connections, pair[0]);
    assert_false(connections_drain(connections, clock_ms()));
    assert_int_equal(pthread_create(&thread, NULL, drain, &is_drained), 0);
    say(pair[1]);
    assert_int_equal(connections_await(connections), pair[0]);
    close(pair[0]);
    assert_int_equal(connections_await(connections), CONNECTIONS_END);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(is_drained);
    close(pair[1]);
}

static void when_draining_waits_for_none_for_long(void **state)
{
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_true(connections_reserve(connections));
    connections_keep(connections, pair[0]);
    assert_true(connections_drain(connections, clock_ms() + 60000));
    assert_int_equal(connections_await(connections), CONNECTIONS_END);
    close(pair[0]);
    close(pair[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(gives_a_new_connection_once_something_has_arrived),
        TEST(gives_a_kept_connection_for_each_thing_that_arrives),
        TEST(keeps_so_many_and_no_more),
        TEST(when_draining_accepts_and_keeps_none),
        TEST(when_draining_gives_what_arrives_on_kept_ones_first),
        TEST(when_draining_waits_for_none_for_long),
    };

    return cmocka_run_group_tests_name("connections", tests, NULL, NULL);
}
