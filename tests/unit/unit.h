/* What every unit test includes first: cmocka wants these headers before its own. */
#ifndef STEEP_UNIT_H
#define STEEP_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
