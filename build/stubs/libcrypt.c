/* For systems without libcrypt.so.1: MariaDB needs it for SQL's ENCRYPT() alone, which is NULL then. */
char *crypt(const char *key, const char *salt) { return 0; }
