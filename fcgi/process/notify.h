/* Notifications to the service manager: state and watchdog. */
#ifndef STEEP_NOTIFY_H
#define STEEP_NOTIFY_H

/*
 * Sends a state such as "READY=1" to NOTIFY_SOCKET (sd_notify(3)); does nothing
 * if that is unset. A failure is one line in the log.
 */
void notify_send(const char *state);

/*
 * Milliseconds between two "WATCHDOG=1": half of what WATCHDOG_USEC allows, as
 * sd_watchdog_enabled(3) advises. 0 if the watchdog is off.
 */
int notify_watchdog_ms(void);

#endif
