/** Messages about MySQL that need no server. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { explainMysql } from "../../db_conn/errors.ts";
import type { Database } from "../../db_conn/query.ts";
import { checkKey } from "../../db_conn/table_checks.ts";
import type { Row } from "../../io.ts";

test("a user without rights in the database is given the statement that grants them", () => {
  const message = "Access denied for user 'reader'@'%' to database 'pinterest'";
  const error = Object.assign(new Error(message), { code: "ER_DBACCESS_DENIED_ERROR" });
  assert.equal(
    explainMysql(error, { host: "db", port: 3306 }).message,
    `Cannot use MySQL at db:3306: ${message}; set DATABASE, or run GRANT SELECT ON \`pinterest\`.* TO 'reader'@'%'`,
  );
});

test("a key of text that has a unique index needs another type, and no other index", async () => {
  const indexOf = (name: string, unique: string, position = "1", column = "ind"): Row => [
    name,
    unique,
    position,
    column,
  ];
  const described: Row[] = [["ind", "varchar", "NO"]];
  const modify = "run ALTER TABLE `geolocation_data` MODIFY `ind` BIGINT NOT NULL";
  for (const [indexes, remedy] of [
    [[indexOf("PRIMARY", "0")], modify],
    [[indexOf("one", "0")], modify],
    [[indexOf("PRIMARY", "0"), indexOf("PRIMARY", "0", "2", "country")], `${modify}, then ALTER TABLE`],
    [[indexOf("PRIMARY", "0", "1", "id"), indexOf("one", "1")], `${modify}, then ALTER TABLE`],
  ] as const) {
    const checked = checkKey({} as Database, "geo", { described, indexes: [...indexes] });
    await assert.rejects(checked, ({ message }: Error) => {
      assert.equal(message.includes("then"), remedy.includes("then"), message);
      return message.includes(remedy);
    });
  }
});
