/* Attributes of functions that compilers check. */
#ifndef STEEP_ATTRIBUTES_H
#define STEEP_ATTRIBUTES_H

/* For functions whose result must not be ignored. */
#define MUST_CHECK __attribute__((warn_unused_result))

#endif
