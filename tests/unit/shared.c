#include "answer/shared.h"
#include "answer/sizes.h"
#include "answer/turns.h"
#include "base/clock.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

enum { SOON_MS = 30, KNOWN = 64 };

static const struct question WEEK = {.parameters = {.days = 7}};
static const struct question MONTH = {.parameters = {.days = 30}};
static const struct question LAPTOP = {
    .parameters = {.days = 7, .source_length = 6, .source = "laptop"}};

/* Parks the member given as context. */
static struct shared_member *park(void *context)
{
    return context;
}

static struct shared_member *park_none(void *context)
{
    (void)context;
    return NULL;
}

static int count(const struct shared_member *members)
{
    int number = 0;

    for (; members != NULL; members = members->next)
        number++;
    return number;
}

static void those_that_ask_the_same_follow_the_leader(void **state)
{
    struct shared week;
    struct shared month;
    struct shared laptop;
    struct shared other;
    struct shared_member members[3];
    struct question same = WEEK;

    (void)state;
    same.parameters.source[0] = 'x'; /* behind its length */
    assert_true(shared_lead(&week, &WEEK, SHARED_ANY_FORM, park, NULL));
    assert_true(shared_lead(&month, &MONTH, SHARED_ANY_FORM, park, NULL));
    assert_true(shared_lead(&laptop, &LAPTOP, SHARED_ANY_FORM, park, NULL));
    assert_false(shared_lead(&other, &same, SHARED_ANY_FORM, park, &members[0]));
    assert_false(shared_lead(&other, &WEEK, SHARED_ANY_FORM, park, &members[1]));
    assert_ptr_equal(shared_take(&week), &members[0]);
    assert_ptr_equal(members[0].next, &members[1]);
    assert_null(members[1].next);
    assert_false(shared_lead(&other, &WEEK, SHARED_ANY_FORM, park, &members[2]));
    assert_ptr_equal(shared_take_or_end(&week), &members[2]);
    assert_null(shared_take_or_end(&week));
    assert_true(shared_lead(&other, &WEEK, SHARED_ANY_FORM, park, NULL));
    assert_null(shared_end(&other));
    assert_null(shared_end(&month));
    assert_null(shared_end(&laptop));
}

static struct scope *scope_of(const char *names, const char *prefixes)
{
    return scope_new((struct scope_array){(const unsigned char *)names, strlen(names)},
                     (struct scope_array){(const unsigned char *)prefixes, strlen(prefixes)});
}

static void only_those_of_the_same_scope_follow_the_leader(void **state)
{
    struct question team = {.parameters = WEEK.parameters, .scope = scope_of("ab", "c")};
    struct question same = {.parameters = WEEK.parameters, .scope = scope_of("ab", "c")};
    const struct question others[] = {
        WEEK,
        {.parameters = MONTH.parameters, .scope = team.scope},
        {.parameters = WEEK.parameters, .scope = scope_of("a", "bc")},
        {.parameters = WEEK.parameters, .scope = scope_of("aB", "c")},
        {.parameters = WEEK.parameters, .scope = scope_of("", "c")},
    };
    struct shared leader;
    struct shared other;
    struct shared_member member;

    (void)state;
    assert_true(shared_lead(&leader, &team, SHARED_ANY_FORM, park, NULL));
    sizes_note(&team, SIZES_LONG, true, false);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_true(shared_lead(&other, &others[i], SHARED_ANY_FORM, park, NULL));
        assert_null(shared_end(&other));
        assert_false(sizes_expect(&others[i], SIZES_LONG, false));
    }
    assert_false(shared_lead(&other, &same, SHARED_ANY_FORM, park, &member));
    assert_ptr_equal(shared_end(&leader), &member);
    /* The note outlives the scope of who made it. */
    scope_release(team.scope);
    assert_true(sizes_expect(&same, SIZES_LONG, false));
    sizes_note(&same, SIZES_LONG, false, false);
    for (size_t i = 2; i < sizeof(others) / sizeof(others[0]); i++)
        scope_release(others[i].scope);
    scope_release(same.scope);
}

static void one_that_cannot_be_parked_leads_without_followers(void **state)
{
    struct shared first;
    struct shared second;
    struct shared third;
    struct shared_member member;

    (void)state;
    assert_true(shared_lead(&first, &WEEK, SHARED_ANY_FORM, park_none, NULL));
    assert_true(shared_lead(&second, &WEEK, SHARED_ANY_FORM, park_none, NULL));
    assert_false(shared_lead(&third, &WEEK, SHARED_ANY_FORM, park, &member));
    assert_null(shared_take_or_end(&second));
    assert_ptr_equal(shared_end(&first), &member);
}

static void only_so_many_are_parked(void **state)
{
    struct shared_member *members = calloc(SHARED_PARKED_MOST, sizeof(*members));
    struct shared_member surplus;
    struct shared first;
    struct shared other;

    (void)state;
    assert_non_null(members);
    assert_true(shared_lead(&first, &WEEK, SHARED_ANY_FORM, park, NULL));
    for (int i = 0; i < SHARED_PARKED_MOST; i++)
        assert_false(shared_lead(&other, &WEEK, SHARED_ANY_FORM, park, &members[i]));
    assert_true(shared_lead(&other, &WEEK, SHARED_ANY_FORM, park, &surplus));
    assert_null(shared_end(&other));
    assert_int_equal(count(shared_take(&first)), SHARED_PARKED_MOST);
    assert_false(shared_lead(&other, &WEEK, SHARED_ANY_FORM, park, &surplus));
    assert_int_equal(count(shared_end(&first)), 1);
    free(members);
}

static void those_of_a_form_follow_a_leader_of_that_form(void **state)
{
    struct shared all;
    struct shared plain;
    struct shared other;
    struct shared_member member;

    (void)state;
    assert_true(shared_lead(&all, &WEEK, SHARED_ANY_FORM, park, NULL));
    assert_true(shared_lead(&plain, &WEEK, 0, park, NULL));
    assert_true(shared_lead(&other, &WEEK, 1, park, NULL));
    assert_null(shared_end(&other));
    assert_false(shared_lead(&other, &WEEK, 0, park, &member));
    assert_null(shared_end(&all));
    assert_ptr_equal(shared_end(&plain), &member);
}

static void knows_the_sizes_of_recent_answers(void **state)
{
    (void)state;
    assert_false(sizes_expect(&WEEK, SIZES_LARGE_PLAIN, false));
    assert_true(sizes_expect(&WEEK, SIZES_LARGE_PLAIN, true));
    sizes_note(&WEEK, SIZES_LARGE_PLAIN, true, false);
    sizes_note(&WEEK, SIZES_LARGE_PLAIN, true, false);
    assert_true(sizes_expect(&WEEK, SIZES_LARGE_PLAIN, false));
    assert_false(sizes_expect(&WEEK, SIZES_LARGE_GZIP, false));
    assert_true(sizes_expect(&WEEK, SIZES_LARGE_GZIP, true));
    assert_false(sizes_expect(&MONTH, SIZES_LARGE_PLAIN, false));
    sizes_note(&WEEK, SIZES_LARGE_PLAIN, false, false);
    assert_false(sizes_expect(&WEEK, SIZES_LARGE_PLAIN, true));
}

static void forgets_the_sizes_of_the_oldest_answer_first(void **state)
{
    struct question asked = LAPTOP;

    (void)state;
    for (int i = 0; i <= KNOWN; i++) {
        asked.parameters.source[0] = (char)('0' + i);
        sizes_note(&asked, SIZES_LARGE_GZIP, true, false);
    }
    assert_true(sizes_expect(&asked, SIZES_LARGE_GZIP, false));
    asked.parameters.source[0] = '1';
    assert_true(sizes_expect(&asked, SIZES_LARGE_GZIP, false));
    asked.parameters.source[0] = '0';
    assert_false(sizes_expect(&asked, SIZES_LARGE_GZIP, false));
}

static void what_is_expected_of_others_makes_it_forget_nothing(void **state)
{
    struct question asked = LAPTOP;

    (void)state;
    asked.parameters.days = 30; /* unlike those of the other tests */
    sizes_note(&MONTH, SIZES_LARGE_GZIP, true, false);
    for (int i = 0; i <= KNOWN; i++) {
        asked.parameters.source[0] = (char)('A' + i);
        sizes_note(&asked, SIZES_LARGE_GZIP, false, false);
        sizes_note(&asked, SIZES_LONG, true, true);
    }
    assert_true(sizes_expect(&MONTH, SIZES_LARGE_GZIP, false));
    sizes_note(&asked, SIZES_LONG, false, true);
    assert_false(sizes_expect(&asked, SIZES_LONG, true));
}

static void half_of_the_connections_are_turns_and_at_least_one(void **state)
{
    /* Connections, workers, turns. */
    static const int CASES[][3] = {{1, 32, 1},      {2, 32, 1},   {3, 32, 1}, {4, 32, 2},
                                   {256, 256, 128}, {64, 32, 16}, {64, 8, 4}, {2, 1, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        const struct config config = {.connections = CASES[i][0], .workers = CASES[i][1]};
        int taken = 0;

        while (turns_try(&config))
            taken++;
        assert_int_equal(taken, CASES[i][2]);
        assert_false(turns_take(&config, clock_ms() + SOON_MS));
        while (taken-- > 0)
            turns_give_back();
        assert_true(turns_take(&config, clock_ms()));
        turns_give_back();
    }
}

static void two_workers_leave_one_for_other_answers(void **state)
{
    const struct config config = {.workers = 2, .connections = 2};
    int64_t begun = clock_ms();

    (void)state;
    assert_true(turns_try(&config));
    assert_false(turns_take(&config, begun + 60000));
    assert_true(clock_ms() < begun + 60000);
    turns_give_back();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_that_ask_the_same_follow_the_leader),
        cmocka_unit_test(only_those_of_the_same_scope_follow_the_leader),
        cmocka_unit_test(one_that_cannot_be_parked_leads_without_followers),
        cmocka_unit_test(only_so_many_are_parked),
        cmocka_unit_test(those_of_a_form_follow_a_leader_of_that_form),
        cmocka_unit_test(knows_the_sizes_of_recent_answers),
        cmocka_unit_test(forgets_the_sizes_of_the_oldest_answer_first),
        cmocka_unit_test(what_is_expected_of_others_makes_it_forget_nothing),
        cmocka_unit_test(half_of_the_connections_are_turns_and_at_least_one),
        cmocka_unit_test(two_workers_leave_one_for_other_answers),
    };

    return cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
