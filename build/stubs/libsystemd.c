/* For systems without libsystemd: MariaDB tells it that it has started, and nobody listens here. */
int sd_notify(int unset, const char *state) { return 0; }
int sd_notifyf(int unset, const char *format, ...) { return 0; }
int sd_listen_fds(int unset) { return 0; }
