/* Classes of PostgreSQL's error codes (its manual, appendix A). */
#ifndef STEEP_SQLSTATE_H
#define STEEP_SQLSTATE_H

enum { SQLSTATE_BYTES = 5 };

enum sqlstate_class {
    SQLSTATE_LOST,     /* the connection is gone, or about to be: 08xxx, 57P0x, or no code */
    SQLSTATE_BAD_DATA, /* 22xxx, 23502, 23514, 54000, 54001 */
    SQLSTATE_CONFLICT, /* 40001, 40P01: try again */
    SQLSTATE_SHORTAGE, /* the server can't at the moment: 53xxx, 55P03, 57014, 25006, 58030, XX000,
                          … */
    SQLSTATE_FAULT,    /* anything else: of the program, or of the installation */
};

/* sqlstate is NULL for an error of libpq itself. */
enum sqlstate_class sqlstate_classify(const char *sqlstate);

#endif
