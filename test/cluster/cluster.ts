/**
 * The services of the cluster tests: three brokers and a controller, or one secured broker; certificates.
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { newId, startKafka } from "../../local/broker.ts";
import { freePort } from "../../local/processes.ts";
import type { Services } from "../faults/sandbox.ts";
import { type DatabaseServices, openDatabase, openService, prepare, type Service } from "../support/bare_services.ts";

/** Three brokers, a controller in a separate process, and a database. */
export interface Cluster extends DatabaseServices, Pick<Services, "kafka" | "close"> {
  /** By node id. */
  brokers: Map<number, Service>;
}

/** Starts the cluster. Topics have three replicas, two of which must have a message before it is acknowledged. */
export async function openCluster(folder: string): Promise<Cluster> {
  const { tools, kafka, server } = await prepare(folder);
  const clusterId = newId();
  const controller = await freePort();
  const node = async (id: number, settings: (port: number) => Record<string, string | number>) => {
    const broker = id === 100 ? controller : await freePort();
    const home = join(folder, `node-${id}`);
    mkdirSync(home);
    const replication = {
      "default.replication.factor": 3,
      "min.insync.replicas": 2,
      "offsets.topic.replication.factor": 3,
      "transaction.state.log.replication.factor": 3,
      "transaction.state.log.min.isr": 2,
      // Several coordinators, so that each broker has one.
      "transaction.state.log.num.partitions": 3,
      "replica.lag.time.max.ms": 4_000,
      "controller.quorum.voters": `100@127.0.0.1:${controller}`,
      "node.id": id,
    };
    const place = { folder: home, ports: { broker, controller }, clusterId };
    const service = await openService(() =>
      startKafka(kafka, { ...place, settings: { ...replication, ...settings(broker) } }, tools),
    );
    return { id, service, address: `127.0.0.1:${broker}` };
  };
  const listen = (name: string) => (port: number) => ({
    "process.roles": name === "CONTROLLER" ? "controller" : "broker",
    listeners: `${name}://127.0.0.1:${port}`,
    "advertised.listeners": `${name}://127.0.0.1:${port}`,
  });
  const head = node(100, listen("CONTROLLER"));
  const [own, ...nodes] = await Promise.all([
    openDatabase(server, folder, tools),
    ...[1, 2, 3].map((id) => node(id, listen("PLAINTEXT"))),
  ]);
  const { service: quorum } = await head;
  return {
    ...own,
    brokers: new Map(nodes.map(({ id, service }) => [id, service])),
    kafka: { BROKERS: nodes.map(({ address }) => address), REPLICATION_FACTOR: 3 },
    async close() {
      const all = [...nodes.map(({ service }) => service), own.database];
      await Promise.all(all.map((service) => service.stop("SIGTERM").catch(() => {})));
      await quorum.stop("SIGTERM").catch(() => {});
    },
  };
}

/** Creates certificates in a folder with the system's openssl. They are valid for a day. */
export function certificates(folder: string) {
  mkdirSync(folder, { recursive: true });
  const path = (name: string) => join(folder, name);
  const openssl = (args: string[]) => execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
  const key = (name: string) => [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-keyout",
    name,
  ];
  const authority = (ca: string) => {
    if (!existsSync(path(`${ca}.pem`)))
      openssl(["req", "-x509", ...key(`${ca}.key`), "-out", `${ca}.pem`, "-subj", `/CN=${ca}`, "-days", "1"]);
    return path(`${ca}.pem`);
  };
  return {
    /** The certificate of an authority. */
    authority,
    /** A server's certificate and key, signed by an authority; `names`: `DNS:localhost,IP:127.0.0.1`. */
    server(name: string, { ca, names }: { ca: string; names: string }) {
      authority(ca);
      writeFileSync(path("names"), `subjectAltName=${names}\nbasicConstraints=CA:FALSE\n`);
      openssl(["req", ...key(`${name}.key`), "-out", `${name}.csr`, "-subj", `/CN=${name}`]);
      const by = ["-CA", `${ca}.pem`, "-CAkey", `${ca}.key`, "-CAcreateserial", "-extfile", "names"];
      openssl(["x509", "-req", "-in", `${name}.csr`, "-out", `${name}.pem`, "-days", "1", ...by]);
      const [certificate, privateKey] = [path(`${name}.pem`), path(`${name}.key`)];
      const both = path(`${name}-both.pem`); // the format for Kafka
      writeFileSync(both, readFileSync(privateKey, "utf8") + readFileSync(certificate, "utf8"), { mode: 0o600 });
      return { certificate, privateKey, both };
    },
  };
}
