# workerd as a D1 server: one Durable Object with its own SQLite database for each D1 database.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "api", worker = .api),
    # --directory-path=storage=DIR says where.
    (name = "storage", disk = (path = "/nonexistent", writable = true)),
  ],
  # --socket-addr=http=HOST:PORT says which port, so that an engine that was killed can come back to its own.
  sockets = [ (name = "http", address = "127.0.0.1:0", http = (), service = "api") ],
);

const api :Workerd.Worker = (
  modules = [ (name = "worker.mjs", esModule = embed "worker.mjs") ],
  compatibilityDate = "2026-07-01",
  durableObjectNamespaces = [
    (className = "Database", uniqueKey = "dal-tests-database", enableSql = true),
    (className = "Directory", uniqueKey = "dal-tests-directory", enableSql = true),
  ],
  durableObjectStorage = (localDisk = "storage"),
  bindings = [
    (name = "DATABASES", durableObjectNamespace = "Database"),
    (name = "DIRECTORY", durableObjectNamespace = "Directory"),
    (name = "ACCOUNT", fromEnvironment = "D1_ENGINE_ACCOUNT"),
    (name = "TOKEN", fromEnvironment = "D1_ENGINE_TOKEN"),
  ],
);
