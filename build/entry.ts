/**
 * Where the executable begins: the command line, or the process that owns the services.
 *
 * @module
 */
const [, , script, folder, ...others] = process.argv;
if (script === "supervise" && folder && others.length === 0)
  void import("../local/supervisor.ts").then(({ supervise }) => supervise(folder));
else void import("../main.ts");
