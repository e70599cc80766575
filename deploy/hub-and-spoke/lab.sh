#!/usr/bin/env bash
# Azure's hub and spoke, on network namespaces of this machine: two spokes, a hub with haports and three firewalls, and the
# fabric between them. Nothing outside of the namespaces is touched. See docs/hub-and-spoke.md.
#
#   sudo deploy/hub-and-spoke/lab.sh up      builds it, and starts haports in it
#   sudo deploy/hub-and-spoke/lab.sh test    shows symmetric flows and a failover; exit code 1 if something is wrong
#   sudo deploy/hub-and-spoke/lab.sh down    removes it
#
#   spoke-1 10.10.0.4 --.                 .-- 10.0.0.4  haports   next hop of both spokes' routes
#                        >-- the fabric --+-- 10.0.0.11 nva-1     firewalls with state
#   spoke-2 10.20.0.4 --'   (peerings)    +-- 10.0.0.12 nva-2
#                                         '-- 10.0.0.13 nva-3
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# Before the names of all namespaces, for more than one lab at a time.
lab=${LAB:-hubspoke}
state=${TMPDIR:-/tmp}/$lab
# shellcheck disable=SC2206 # words of a command line
haports=(${HAPORTS:-node "$here/../../dist/main.js"})
hosts=(spoke-1 spoke-2 fabric haports nva-1 nva-2 nva-3)
nvas=(nva-1 nva-2 nva-3)
spoke_1=10.10.0.4 spoke_2=10.20.0.4
flows=200

in_ns() { ip netns exec "$lab-$1" "${@:2}"; }
fail() { echo "lab: $*" >&2; exit 1; }

# A host of the lab, on a subnet whose gateway is the fabric. $1: name, $2: address, $3: gateway
host() {
  ip link add eth0 netns "$lab-$1" type veth peer name "$1" netns "$lab-fabric"
  ip -n "$lab-$1" address add "$2/24" dev eth0
  ip -n "$lab-$1" link set eth0 up
  ip -n "$lab-fabric" link set "$1" up
  ip -n "$lab-$1" route add default via "$3"
}

# Packets come in at one side and leave at the other: no reverse path filter, and no advice to take a shorter way.
forward() {
  in_ns "$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward
    for filter in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >"$filter"; done
    for redirects in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >"$redirects"; done'
}

# Passes what belongs to a flow whose first packet it has seen, and nothing else: a firewall that sees one direction of a
# flow only breaks it.
firewall() {
  in_ns "$1" sh -c 'echo 0 >/proc/sys/net/netfilter/nf_conntrack_tcp_loose'
  in_ns "$1" nft -f - <<'RULES'
table inet firewall {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ct state invalid drop
    tcp flags & (fin | syn | rst | ack) == syn accept
    udp dport 7 accept
    icmp type echo-request accept
  }
}
RULES
}

# Answers in the background. $1: host, $2: port
serve() { in_ns "$1" node "$here/flows.mjs" serve "$2" >>"$state/$1.log" 2>&1 </dev/null & }

up() {
  ! ip netns list | grep -q "^$lab-fabric\b" || fail "it is up already: $0 down"
  for tool in ip nft conntrack node; do command -v "$tool" >/dev/null || fail "not installed: $tool"; done
  mkdir -p "$state"
  for name in "${hosts[@]}"; do ip netns add "$lab-$name"; ip -n "$lab-$name" link set lo up; done

  # The hub's subnet, and the spokes, which are peered with the hub and not with each other.
  host spoke-1 "$spoke_1" 10.10.0.1
  host spoke-2 "$spoke_2" 10.20.0.1
  ip -n "$lab-fabric" address add 10.10.0.1/24 dev spoke-1
  ip -n "$lab-fabric" address add 10.20.0.1/24 dev spoke-2
  ip -n "$lab-fabric" link add hub type bridge
  ip -n "$lab-fabric" link set hub up
  ip -n "$lab-fabric" address add 10.0.0.1/24 dev hub
  host haports 10.0.0.4 10.0.0.1
  local last=11
  for name in "${nvas[@]}"; do host "$name" "10.0.0.$((last++))" 10.0.0.1; done
  for name in haports "${nvas[@]}"; do ip -n "$lab-fabric" link set "$name" master hub; done

  # User-defined routes: whatever leaves a spoke has haports for its next hop. Azure's `next hop type: virtual appliance`.
  for spoke in spoke-1 spoke-2; do ip -n "$lab-fabric" rule add pref 100 iif "$spoke" lookup 100; done
  ip -n "$lab-fabric" route add default via 10.0.0.4 table 100

  for name in fabric haports "${nvas[@]}"; do forward "$name"; done
  for name in "${nvas[@]}"; do
    firewall "$name"
    serve "$name" 9000
  done
  for name in spoke-1 spoke-2; do serve "$name" 7; done
  (cd "$state" && in_ns haports "${haports[@]}" run -c "$here/haports.json") >"$state/haports.log" 2>&1 </dev/null &
  disown -a
  wait_for 'all three NVAs to be up' healthy 3
  echo "lab: up; the log of haports is $state/haports.log"
}

# Whether that many NVAs take new flows. $1: how many
healthy() {
  [ "$(cd "$state" && "${haports[@]}" backends --json --socket "$state/haports.sock" 2>/dev/null |
    grep -c '"health": *"up"')" = "$1" ]
}

wait_for() {
  for _ in $(seq 100); do
    if "${@:2}"; then return; fi
    sleep 0.1
  done
  fail "waited in vain for $1; see $state/haports.log"
}

down() {
  for name in "${hosts[@]}"; do
    ip netns pids "$lab-$name" 2>/dev/null | xargs -r kill 2>/dev/null || true
  done
  for name in "${hosts[@]}"; do
    for _ in $(seq 50); do [ -n "$(ip netns pids "$lab-$name" 2>/dev/null)" ] || break; sleep 0.1; done
    ip netns pids "$lab-$name" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns delete "$lab-$name" 2>/dev/null || true
  done
  rm -rf "$state"
}

# Flows of which an NVA has seen both directions. $1: NVA, $2: protocol
seen() { in_ns "$1" conntrack -L -p "$2" 2>/dev/null | grep -v UNREPLIED | grep -c "dport=7 " || true; }
forget() { for name in haports "${nvas[@]}"; do in_ns "$name" conntrack -F >/dev/null 2>&1; done; }

# One question on each of many flows. $1: spoke, $2: address of the other, $3: first source port
ask() {
  local text
  text=$(in_ns "$1" node "$here/flows.mjs" ask "$2" 7 "$flows" "$3")
  echo "$text" | sed "s/^/  from $1: /"
  [ "$(grep -c " $flows of $flows answered" <<<"$text")" = 2 ] || broken "flows from $1 were lost"
}

wrong=0
broken() { echo "  WRONG: $*"; wrong=1; }

test_symmetry() {
  echo "1. Flows from both spokes, through three firewalls that drop half-seen flows"
  forget
  ask spoke-1 "$spoke_2" 20000
  ask spoke-2 "$spoke_1" 30000
  local protocol sum count
  for protocol in tcp udp; do
    sum=0
    for name in "${nvas[@]}"; do
      count=$(seen "$name" "$protocol")
      sum=$((sum + count))
      echo "  $name has seen both directions of $count $protocol flows"
      [ "$count" -gt 0 ] || broken "$name has nothing to do"
    done
    [ "$sum" = $((2 * flows)) ] || broken "$sum $protocol flows on NVAs, must be $((2 * flows))"
  done
}

test_failover() {
  echo "2. nva-2 dies with flows open"
  forget
  coproc held { in_ns spoke-1 node "$here/flows.mjs" hold "$spoke_2" 7 60; }
  local opened before after line
  read -r -t 10 opened <&"${held[0]}"
  before=$(seen nva-2 tcp)
  echo "  ${opened#open } TCP flows open, $before of them on nva-2"
  ip -n "$lab-nva-2" link set eth0 down
  wait_for 'the probe of nva-2 to fail' healthy 2
  # The verdict is known a moment before it is applied.
  sleep 0.5
  echo >&"${held[1]}"
  read -r -t 10 line <&"${held[0]}"
  echo "  asked again: $line"
  [ "$line" = "answered $((60 - before)) reset $before silent 0" ] ||
    broken "flows of nva-2 must be reset at once, all others must go on"
  echo "3. New flows while nva-2 is down"
  ask spoke-1 "$spoke_2" 21000
  after=$(seen nva-2 tcp)
  [ "$after" = "$before" ] || broken "nva-2 got new flows"
  echo "4. nva-2 comes back"
  ip -n "$lab-nva-2" link set eth0 up
  ip -n "$lab-nva-2" route add default via 10.0.0.1
  wait_for 'the probe of nva-2 to succeed' healthy 3
  ask spoke-2 "$spoke_1" 31000
  echo >&"${held[1]}"
  read -r -t 10 line <&"${held[0]}"
  echo "  flows that were open all the time: $line"
  [ "$line" = "answered $((60 - before)) reset 0 silent 0" ] || broken "a flow was moved when nva-2 came back"
  exec {held[1]}>&-
  wait "$held_PID" || true
}

run_test() {
  ip netns list | grep -q "^$lab-fabric\b" || fail "it is not up: $0 up"
  test_symmetry
  test_failover
  if [ "$wrong" != 0 ]; then fail 'something is wrong, see above'; fi
  echo "lab: every flow crossed one firewall, in both directions"
}

[ "$(id -u)" = 0 ] || fail 'network namespaces need root: sudo'
case "${1:-}" in
  up) up ;;
  test) run_test ;;
  down) down ;;
  *) fail "usage: $0 up|test|down" ;;
esac
