/**
 * A private MariaDB or MySQL server: its data folder, its account, its start.
 *
 * @module
 */

import { randomUUID } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { answers, type Guarded, type Tools, untilReady } from "./processes.ts";
import type { MysqlProgram } from "./programs.ts";
import { type MysqlAddress, writePrivate } from "./state.ts";

/** Prefix of the names of these servers (report_host). */
export const ownServers = "embedded-";

/**
 * Starts the server on 127.0.0.1 and creates its data folder at the first start. Resolves when it accepts connections.
 * For tests: `flags` are added to the server's command line and override those set here.
 */
export async function startMysql(
  program: MysqlProgram,
  { folder, address, flags = [] }: { folder: string; address: MysqlAddress; flags?: string[] },
  tools: Tools,
): Promise<Guarded> {
  const { server, home, share, name } = program;
  const log = join(folder, "mariadb.log");
  const output = openSync(log, "a");
  const common = [
    "--no-defaults",
    `--basedir=${home}`,
    `--lc-messages-dir=${share}`,
    "--tmpdir=../tmp", // private: a starting server deletes all temporary tables in its folder
    "--innodb-buffer-pool-size=256M",
    "--loose-innodb-log-file-size=128M",
    ...(process.getuid?.() === 0 ? ["--user=root"] : []), // as root, the server refuses to start without it
  ];

  // The complete executable includes libraries that not every Linux has.
  const libraries = join(home, "lib");
  const isComplete = existsSync(join(libraries, "libsystemd.so.0"));
  const env = isComplete ? { ...process.env, LD_LIBRARY_PATH: libraries } : process.env;

  mkdirSync(join(folder, "tmp"), { recursive: true, mode: 0o700 });
  const data = join(folder, "mariadb");
  if (!existsSync(data)) {
    const unfinished = join(folder, "mariadb.unfinished");
    rmSync(unfinished, { recursive: true, force: true });
    mkdirSync(unfinished, { mode: 0o700 });
    const sql = name === "MariaDB" ? systemTables(share) : undefined;
    const how = sql ? ["--bootstrap", "--silent-startup"] : ["--initialize-insecure"]; // MariaDB, MySQL
    const install = tools.spawn(server, [...common, `--datadir=${unfinished}`, ...how], {
      output,
      cwd: unfinished,
      env,
      stdin: "pipe",
    });
    install.child.stdin?.on("error", () => {}).end(sql);
    await untilReady(install, { name: `${name} for the first time`, log, signal: tools.signal });
    renameSync(unfinished, data);
  }
  // Checkpoints and lakes belong to one database, so its name is kept with its data and does not depend on the port.
  const identity = join(data, "pipeline-identity.txt");
  if (!existsSync(identity)) writePrivate(identity, `${ownServers}${randomUUID()}`);

  const setup = join(folder, "mariadb-init.sql");
  writePrivate(setup, accounts(address));
  const service = tools.spawn(
    server,
    [
      ...common,
      `--datadir=${data}`,
      `--init-file=${setup}`,
      "--bind-address=127.0.0.1",
      `--port=${address.port}`,
      "--socket=mysqld.sock", // in the data folder; a full path may be too long for a socket
      "--pid-file=mysqld.pid",
      "--skip-name-resolve",
      `--report-host=${readFileSync(identity, "utf8")}`, // where databaseId() of db_conn.ts looks
      "--loose-skip-ssl", // six times the CPU, on loopback
      ...(name === "MySQL" ? ["--loose-mysqlx=OFF"] : ["--silent-startup"]),
      ...logFlags(name),
      "--local-infile=ON",
      "--max-allowed-packet=64M",
      "--character-set-server=utf8mb4",
      "--default-time-zone=+00:00",
      // A commit is written to the operating system but not synced: it survives SIGKILL, not a power cut. The
      // doublewrite buffer stays on, because SIGKILL can tear a page.
      "--innodb-flush-log-at-trx-commit=2",
      ...flags,
    ],
    { output, cwd: data, env },
  );
  closeSync(output);
  // The server sends its greeting only after it has run the init file.
  const answer = () => answers(address.port);
  await untilReady(service, { name, log, signal: tools.signal, answer });
  rmSync(setup);
  return service;
}

/** The binary log, from which changes are read, is kept for a day; MySQL needs GTIDs to list what is still there. */
const logFlags = (name: string) => [
  ...["--log-bin=binlog", "--server-id=1", "--binlog-format=ROW", "--loose-binlog-expire-logs-seconds=86400"],
  ...(name === "MySQL" ? ["--gtid-mode=ON", "--enforce-gtid-consistency=ON"] : []),
];

/** The statements that create MariaDB's system tables, without the help texts. MySQL creates its own. */
function systemTables(share: string): string {
  const files = readdirSync(share);
  const parts = ["system_tables", "performance_tables", "system_tables_data", "add_gis_sp_bootstrap", "sys_schema"];
  const found = parts.map((part) =>
    files.find((file) => new RegExp(`^(?:mariadb|mysql|maria)_${part}[.]sql$`).test(file)),
  );
  const head = ["create database mysql;", "use mysql;", "set @auth_root_socket='root';", ""].join("\n");
  return head + found.map((file) => file && readFileSync(join(share, file), "utf8")).join("\n");
}

/**
 * The init file, one statement a line. The server's root can log in only through the socket as the system's root
 * (MariaDB), or not at all (MySQL). The account may read the binary log, and may keep sample posts out of it (MariaDB
 * from 10.5.2, MySQL from 8.0.14). The first statement is logged, so that the new log file is not empty and a snapshot's
 * position needs no proof by locks. The others are not logged, because they contain the password.
 */
const accounts = ({ user, password, database }: MysqlAddress) => `\
CREATE DATABASE IF NOT EXISTS ${database} CHARACTER SET utf8mb4;
SET sql_log_bin = 0;
CREATE USER IF NOT EXISTS '${user}'@'%';
ALTER USER '${user}'@'%' IDENTIFIED BY '${password}';
GRANT ALL ON \`pinterest\\_%\`.* TO '${user}'@'%';
GRANT PROCESS, REPLICATION SLAVE, REPLICATION CLIENT /*M!100502 , BINLOG ADMIN */ /*!80014 , SESSION_VARIABLES_ADMIN */ ON *.* TO '${user}'@'%';
`;
