# shellcheck shell=bash
# What tests/services, tests/run, tests/check-compose and .ci/run share. Sourced, never run.

# Versions of the servers that the tests use. Kafka comes from Maven Central; log4j must be the version
# of the log4j-core that this Kafka brings. Not Kafka 4.3 or 4.4: they lose the
# end of a transaction when a broker restarts at the wrong moment; see "Offsets cannot be read" in docs/replay.md.
KAFKA_VERSION=4.2.1
LOG4J_VERSION=2.25.4
# shellcheck disable=SC2034 # used by tests/run
POSTGRES_IMAGE=postgres:17
# shellcheck disable=SC2034 # likewise
KAFKA_IMAGE=apache/kafka:$KAFKA_VERSION

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command and shows its output only when it fails.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ $status -eq 0 ] || { cat "$log" >&2; say "failed ($status): $*"; }
  rm -f "$log"
  return $status
}

# install_packages PACKAGE... : with apt-get where that is possible, else says what is missing and fails.
# Packages that bring a server must not start it: a policy-rc.d that says no stands in meanwhile.
install_packages() {
  if ! have apt-get || [ "$(id -u)" -ne 0 ]; then
    die "missing: $*. Install these packages (names as in Debian), or run this as root on Debian, then try again."
  fi
  say "installing with apt-get: $*"
  (
    exec 8>/var/lock/stock-verifier-apt.lock
    flock 8
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      printf '#!/bin/sh\nexit 101\n' >$policy
      chmod +x $policy
      trap 'rm -f $policy' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get update -qq || exit 1
    quietly apt-get install -y -qq --no-install-recommends "$@" 8>&-
  ) || die "apt-get could not install: $*"
}

# What `cargo build` needs besides Rust: librdkafka is compiled from C, OpenSSL is linked from the system.
ensure_build_tools() {
  local missing=()
  have cc || missing+=(gcc)
  have c++ || missing+=(g++)
  have make || missing+=(make)
  have pkg-config || missing+=(pkg-config)
  { have pkg-config && pkg-config --exists openssl; } || missing+=(libssl-dev)
  [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
  have cargo || die "cargo is missing: install Rust (see rust-version in Cargo.toml)"
}

# What .ci/run checks the code with. They come with Rust, but not with every way to install it.
ensure_lint_tools() {
  local missing=()
  cargo fmt --version >/dev/null 2>&1 || missing+=(rustfmt)
  cargo clippy --version >/dev/null 2>&1 || missing+=(clippy)
  [ ${#missing[@]} -eq 0 ] && return
  have rustup || die "missing: ${missing[*]}. Install them as you installed Rust (with rustup: rustup component add" \
    "${missing[*]}), then try again."
  say "installing with rustup: ${missing[*]}"
  quietly rustup component add "${missing[@]}" || die "rustup could not install: ${missing[*]}"
}

# What checks the dependencies by deny.toml. Built without optimisation: that takes 75 s of processor time instead of 4
# minutes, and it checks in 2 s all the same. Kept with cargo's other commands, so only once per machine. Two may ask at
# once: the second waits.
CARGO_DENY_VERSION=0.20.2
ensure_cargo_deny() {
  (
    exec 8>"${TMPDIR:-/tmp}/stock-verifier-cargo-deny-$(id -u).lock"
    flock 8
    cargo deny --version >/dev/null 2>&1 && exit 0
    say "building cargo-deny $CARGO_DENY_VERSION from the registry (once per machine)"
    quietly nice -n 19 cargo install cargo-deny --version "$CARGO_DENY_VERSION" --locked --debug 8>&-
  ) || die "cargo-deny could not be installed: cargo install cargo-deny --locked"
}

# free_port OWNER : prints a TCP port of the loopback interface that nobody listens on and that no other start on this
# machine has been promised. Below 32768, where Linux begins to take the ports of outgoing connections.
PORT_RESERVATIONS=${TMPDIR:-/tmp}/stock-verifier-ports-$(id -u)
free_port() {
  local port tries
  mkdir -p "$PORT_RESERVATIONS"
  # Links to nothing: their owners have gone. Another start may be removing the same ones.
  find -L "$PORT_RESERVATIONS" -maxdepth 1 -type l -delete 2>/dev/null || true
  for ((tries = 0; tries < 500; tries++)); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    # Not one that the same owner has for another listener.
    owns_port "$1" "$port" && continue
    reserve_port "$1" "$port" && { echo "$port"; return; }
  done
  die "found no free port"
}
# reserve_port OWNER PORT : false when it is somebody else's. The owner is a directory, to which a link named as the
# port points: making one is the atomic test-and-set between starts that run at once, and one whose directory has
# gone counts no more.
reserve_port() {
  local link=$PORT_RESERVATIONS/$2
  mkdir -p "$PORT_RESERVATIONS"
  [ -e "$link" ] || rm -f "$link"
  ln -sn "$1" "$link" 2>/dev/null || [ "$(readlink "$link")" = "$1" ] || return 1
  port_listens "$2" || return 0
  release_port "$1" "$2"
  return 1
}
release_port() { ! owns_port "$1" "$2" || rm -f "$PORT_RESERVATIONS/$2"; }
owns_port() { [ "$(readlink "$PORT_RESERVATIONS/$2")" = "$1" ]; }
port_is_free() { ! port_listens "$1"; }
port_listens() { (exec 7<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# random_uuid : a Kafka cluster id: 16 bytes, base64 for URLs, no dash in front, where it would look like an option.
random_uuid() {
  local id=-
  while [ "${id:0:1}" = - ]; do
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')
  done
  echo "$id"
}

# ensure NAME... : each of apicurio, kafka, postgres, pgbouncer, prometheus, redis, kcat, openssl, chromium, helm,
# kubernetes-validate, last-landed, maven, node, python and systemd that a script or a test needs. Installs the packages
# that are missing in one go, and sets APICURIO_HOME, KAFKA_LIBS, KAFKA_CLASSES, KAFKA_TOOLS_CLASSES, PG_BIN, HELM,
# KUBERNETES_VALIDATE and LAST_LANDED_PROGRAM.
ensure() {
  local name missing=()
  for name in "$@"; do
    case $name in
      apicurio)
        have java || missing+=(openjdk-17-jre-headless)
        [ -d "$(apicurio_home)" ] || have mvn || missing+=(maven)
        ;;
      kafka)
        have java || missing+=(openjdk-17-jre-headless)
        [ -d "$(kafka_cache)/libs" ] || have mvn || missing+=(maven)
        ;;
      postgres) [ -n "$(postgres_bin)" ] || missing+=(postgresql) ;;
      prometheus) have prometheus || missing+=(prometheus) ;;
      pgbouncer) have pgbouncer || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer) ;;
      redis) have redis-server || missing+=(redis-server) ;;
      kcat | openssl) have "$name" || missing+=("$name") ;;
      chromium)
        have chromium || missing+=(chromium)
        have chromedriver || missing+=(chromium-driver)
        ;;
      helm) [ -x "$(helm_program)" ] || have go || missing+=(golang-go) ;;
      maven)
        have javac || missing+=(openjdk-17-jdk-headless)
        have mvn || missing+=(maven)
        ;;
      node) have npm || missing+=(nodejs npm) ;;
      kubernetes-validate) [ -x "$(kubernetes_validate)/bin/kubernetes-validate" ] || ensure python ;;
      last-landed) ;;
      systemd) have systemd-analyze || missing+=(systemd) ;;
      # Debian's own Python makes no virtual environment without it.
      python) python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv) ;;
      *) die "ensure: unknown: $name" ;;
    esac
  done
  [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
  for name in "$@"; do
    case $name in
      apicurio) ensure_apicurio ;;
      kafka) ensure_kafka_libs ;;
      postgres)
        PG_BIN=$(postgres_bin)
        [ -n "$PG_BIN" ] || die "no PostgreSQL server found under /usr/lib/postgresql"
        ;;
      helm) ensure_helm ;;
      kubernetes-validate) ensure_kubernetes_validate ;;
      last-landed) ensure_last_landed ;;
    esac
  done
}

# The jars of a Kafka server, gathered once per machine by Maven.
kafka_cache() { echo "${XDG_CACHE_HOME:-$HOME/.cache}/stock-verifier/kafka-$KAFKA_VERSION"; }
ensure_kafka_libs() {
  local cache work
  cache=$(kafka_cache)
  KAFKA_LIBS=$cache/libs
  # What tests/services keeps of their classes; only the Java that wrote it can read it.
  KAFKA_CLASSES=$cache/java-$(java_built)/server.jsa
  KAFKA_TOOLS_CLASSES=$cache/java-$(java_built)/tools.jsa
  [ -d "$KAFKA_LIBS" ] && return
  mkdir -p "$cache"
  (
    exec 8>"$cache/.lock"
    flock 8
    [ -d "$KAFKA_LIBS" ] && exit 0
    say "gathering the jars of Kafka $KAFKA_VERSION with Maven into $KAFKA_LIBS (about 45 MB, once per machine)"
    work=$(mktemp -d "$cache/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    kafka_pom >"$work/pom.xml"
    quietly mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
      -DoutputDirectory="$work/libs" 8>&- || exit 1
    mv "$work/libs" "$KAFKA_LIBS"
  ) || die "Maven could not gather Kafka $KAFKA_VERSION"
}
kafka_pom() {
  cat <<XML
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>stock-verifier</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$KAFKA_VERSION</version>
    </dependency>
    <!-- The command-line tools, without Connect, which only its own tools need. -->
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>$KAFKA_VERSION</version>
      <exclusions>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId></exclusion>
      </exclusions>
    </dependency>
    <!-- Kafka brings slf4j 1.7 and no binding: this one, not log4j-slf4j2-impl. -->
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>$LOG4J_VERSION</version>
    </dependency>
  </dependencies>
</project>
XML
}

# Apicurio's schema registry, as it is distributed by Maven: the last that runs on Kafka's Java. Kept as Kafka's jars are,
# so once per machine.
APICURIO_VERSION=2.6.13.Final
apicurio_home() { echo "${XDG_CACHE_HOME:-$HOME/.cache}/stock-verifier/apicurio-$APICURIO_VERSION/home"; }
ensure_apicurio() {
  local cache work
  APICURIO_HOME=$(apicurio_home)
  [ -d "$APICURIO_HOME" ] && return
  cache=${APICURIO_HOME%/*}
  mkdir -p "$cache"
  (
    exec 8>"$cache/.lock"
    flock 8
    [ -d "$APICURIO_HOME" ] && exit 0
    say "gathering Apicurio Registry $APICURIO_VERSION with Maven into $APICURIO_HOME (about 140 MB, once per machine)"
    work=$(mktemp -d "$cache/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    quietly mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -DoutputDirectory="$work" \
      -Dartifact="io.apicurio:apicurio-registry-app:$APICURIO_VERSION:tar.gz:all" 8>&- || exit 1
    mkdir "$work/home"
    tar -xzf "$work/apicurio-registry-app-$APICURIO_VERSION-all.tar.gz" -C "$work/home" || exit 1
    mv "$work/home" "$APICURIO_HOME"
  ) || die "Maven could not gather Apicurio Registry $APICURIO_VERSION"
}

# Helm, which Debian does not have, compiled by Go from its module. Kept as Kafka's jars are, so once per machine.
HELM_VERSION=v3.22.0
helm_program() { echo "${XDG_CACHE_HOME:-$HOME/.cache}/stock-verifier/helm-$HELM_VERSION/helm"; }
ensure_helm() {
  HELM=$(helm_program)
  [ -x "$HELM" ] && return
  mkdir -p "${HELM%/*}"
  (
    exec 8>"${HELM%/*}/.lock"
    flock 8
    [ -x "$HELM" ] && exit 0
    say "compiling Helm $HELM_VERSION with Go into $HELM (once per machine)"
    GOBIN=${HELM%/*} quietly go install "helm.sh/helm/v3/cmd/helm@$HELM_VERSION" 8>&-
  ) || die "Go could not compile Helm $HELM_VERSION"
}

# The checker of Kubernetes' own schemas, which it brings along: from PyPI into an environment of its own.
KUBERNETES_VALIDATE_VERSION=1.37.0
kubernetes_validate() {
  echo "${XDG_CACHE_HOME:-$HOME/.cache}/stock-verifier/kubernetes-validate-$KUBERNETES_VALIDATE_VERSION"
}
ensure_kubernetes_validate() {
  KUBERNETES_VALIDATE=$(kubernetes_validate)
  [ -e "$KUBERNETES_VALIDATE/.complete" ] && return
  mkdir -p "$KUBERNETES_VALIDATE"
  (
    exec 8>"$KUBERNETES_VALIDATE/.lock"
    flock 8
    [ -e "$KUBERNETES_VALIDATE/.complete" ] && exit 0
    say "installing kubernetes-validate $KUBERNETES_VALIDATE_VERSION into $KUBERNETES_VALIDATE (once per machine)"
    quietly python3 -m venv "$KUBERNETES_VALIDATE" 8>&- || exit 1
    quietly "$KUBERNETES_VALIDATE/bin/pip" install "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION" 8>&- || exit 1
    touch "$KUBERNETES_VALIDATE/.complete"
  ) || die "pip could not install kubernetes-validate $KUBERNETES_VALIDATE_VERSION"
}

# The program of the version that landed before this one, which it must run beside. Built once per machine from its
# commit, beside a copy of what is compiled here already: most dependencies are the same.
LAST_LANDED=07a2b5c455eb396f7a1d3d7d18ad4197e64961b1
ensure_last_landed() {
  local cache work
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/stock-verifier/last-landed-$LAST_LANDED
  LAST_LANDED_PROGRAM=$cache/stock-verifier
  [ -x "$LAST_LANDED_PROGRAM" ] && return
  mkdir -p "$cache"
  (
    exec 8>"$cache/.lock"
    flock 8
    [ -x "$LAST_LANDED_PROGRAM" ] && exit 0
    git -C "$REPO" cat-file -e "$LAST_LANDED^{commit}" 2>/dev/null ||
      die "the commit $LAST_LANDED is not in this repository: fetch its history (git fetch --unshallow)"
    say "building the version that landed before, $LAST_LANDED (some minutes, once per machine)"
    work=$(mktemp -d "$cache/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    git -C "$REPO" archive "$LAST_LANDED" | tar -x -C "$work"
    copy_dependencies "${CARGO_TARGET_DIR:-$REPO/target}" "$work/target"
    quietly nice cargo build --release --locked --bin stock-verifier --manifest-path "$work/Cargo.toml" \
      --target-dir "$work/target" 8>&- || exit 1
    mv "$work/target/release/stock-verifier" "$LAST_LANDED_PROGRAM"
  ) || die "the version that landed before could not be built"
}
# copy_dependencies FROM TO : what cargo compiled of other crates. Copied, not linked: cargo writes into it.
copy_dependencies() {
  local folder
  mkdir -p "$2/release"
  [ -d "$1/release/deps" ] || return 0
  for folder in .fingerprint build deps; do
    mkdir -p "$2/release/$folder"
    find "$1/release/$folder" -mindepth 1 -maxdepth 1 ! -name '*stock[-_]verifier*' ! -name 'it-*' ! -name 'pipeline-*' \
      -exec cp --archive --reflink=auto --target-directory "$2/release/$folder" {} +
  done
}

# When this Java was built: another has other classes.
java_built() { stat -L -c %Y "$(command -v java)"; }

# kafka_java CLASS ARGUMENT... : a short-lived Kafka tool. The small compiler alone is quickest for these.
kafka_java() {
  java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:SharedArchiveFile="$KAFKA_TOOLS_CLASSES" \
    ${KAFKA_LOG4J:+-Dlog4j2.configurationFile="$KAFKA_LOG4J"} -cp "$KAFKA_LIBS/*" "$@"
}

# postgres_bin : the directory of the newest PostgreSQL server installed here, or nothing.
postgres_bin() {
  local dir
  for dir in $(compgen -G '/usr/lib/postgresql/*/bin' | sort -t/ -k5,5nr) "$(pg_config --bindir 2>/dev/null)"; do
    [ -x "$dir/initdb" ] && { echo "$dir"; return; }
  done
  return 0
}

# The server that tests/run starts with Docker, as the environment of the apache/kafka image, one NAME=VALUE a line.
# tests/check-compose boots a real broker with the same. docker_kafka_env PORT, where clients on this machine connect.
docker_kafka_env() {
  cat <<ENVIRONMENT
KAFKA_NODE_ID=1
KAFKA_PROCESS_ROLES=broker,controller
KAFKA_CONTROLLER_QUORUM_VOTERS=1@localhost:9093
KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER
KAFKA_LISTENERS=PLAINTEXT://0.0.0.0:$1,CONTROLLER://localhost:9093
KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:$1
KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR=1
KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS=8
KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR=1
KAFKA_TRANSACTION_STATE_LOG_MIN_ISR=1
KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS=8
KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR=1
KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR=1
KAFKA_AUTO_CREATE_TOPICS_ENABLE=false
KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS=0
KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS=1000
KAFKA_GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS=1000
KAFKA_GROUP_CONSUMER_SESSION_TIMEOUT_MS=6000
KAFKA_GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS=500
KAFKA_GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS=1000
KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS=1000
ENVIRONMENT
}
# docker_postgres_settings : for the same purpose, the settings that tests/services writes, for `postgres -c`.
docker_postgres_settings() {
  printf '%s\n' fsync=on synchronous_commit=on shared_buffers=1GB max_wal_size=8GB max_connections=200
}
