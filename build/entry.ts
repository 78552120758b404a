/**
 * Entry of the executable: runs the command line, or the supervisor of the services.
 *
 * @module
 */
const [, , script, folder, ...others] = process.argv;
if (script === "supervise" && folder && others.length === 0)
  void import("../local/supervisor.ts").then(({ supervise }) => supervise(folder));
else void import("../main.ts");
