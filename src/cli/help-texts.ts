/** What the commands' helps say beyond options: examples, and what is good to know before. */

export const EXIT_CODES = `
Exit codes: 0 fine, 1 failed, 2 bad configuration or usage, 3 gate exceeded (--max-moved).

Commands that ask a running process find it by --socket, HAPORTS_SOCKET, or "admin": { "socket": ... } of the
configuration file that -c names (config.json).
`;

export const RUN_HELP = `
Examples:
  haports run -c /etc/haports/config.json
  haports run --watch

Signals: SIGTERM or SIGINT takes no new flows, lets flows finish until shutdown.deadline (30s) and resets the rest;
a second one ends at once. SIGUSR2 upgrades, see haports upgrade. SIGHUP reloads the configuration file and re-opens the flow log (for log rotation). A
configuration that cannot be used is refused whole, and what was served before is served on.

--watch sees writes, renames over the file (editors) and swapped symbolic links (Kubernetes).

The log goes to stderr: lines for people on a terminal, else JSON.
`;

export const EXPLAIN_HELP = `
Examples:
  haports explain tcp 192.0.2.7:40000 127.0.0.1:8080
  haports explain -c config.json tcp 192.0.2.7:40000 127.0.0.1:8080
  haports explain -c config.json udp [2001:db8::7]:40000 [::1]:8053 --json
  haports explain -c config.json tcp 192.0.2.7:40000 127.0.0.1:8080 --down nvas/nva-2

The source is the client, the destination the frontend. The running process is asked, and shows the flow too if it is
there. With -c or --down, or where no process runs, the configuration alone is explained: probes are taken for up
unless --down says otherwise.
`;

export const KERNEL_HELP = `
Examples:
  haports kernel ruleset -c config.json
  haports kernel ruleset -c config.json --full > haports.nft
  haports kernel flush --instance edge

ruleset is a dry run that needs no privilege: the nft table and the routes and addresses that "haports run" would put in
place, with elements abbreviated unless --full. Ports that other processes of this machine have are left out by "run"
only. flush takes away what an instance has left behind, by its name; it refuses while that instance runs, and needs
CAP_NET_ADMIN. A start of the same instance does so by itself.
`;

export const DOCTOR_HELP = `
Examples:
  haports doctor -c config.json
  haports doctor -c config.json --no-paths --json

Examines tools, privilege, sysctls, the interface, frontends' addresses, and each backend: whether it is there, and on
the kernel data plane whether flows reach it and come back. With a floating mode a connection to the frontend's address
is sent to each backend in turn, by its source port; with nat one comes from an address of nobody. For that, routes of
this machine are changed for a moment, for that connection alone: --no-paths leaves that out. Below a problem stands
what to do about it, on backends for Linux, Windows and FreeBSD. Exit codes: 1 a problem was found.
`;

export const DEMO_HELP = `
Starts a small sample NVA for each backend of the configuration, and the balancer in front of them, all on this
machine's loopback addresses. Needs no root and no other software. Ends with Ctrl-C.
`;

export const FLOWS_HELP = `
Examples:
  haports flows --backend nvas/nva-1 --sort bytes --limit 20
  haports flows --reason pinned
  haports flows --source 192.0.2.7 --json

Reasons: hash (its slot's backend), retry (the first could not be reached), rebalanced (moved by flow policy),
fail-open (nobody was eligible), pinned (its hash would now choose another, but existing flows stay).
`;

export const TOP_HELP = `
Keys: q quit, b backends, f flows, s sort (age, bytes, rate, idle), / filter by client or backend, p pause, ? help.

Where the output is not a terminal, one snapshot is printed.
`;

export const DRAIN_HELP = `
Examples:
  haports drain nvas/nva-1 --watch
  haports drain nvas/nva-1 --deadline 1h --then leave
  haports drain nvas/nva-1 --show --watch
  haports drain nvas/nva-1 --cancel

From the next flow on the backend gets none. At the deadline, flows that are left end as their rule's flow policy for
drain-deadline says, spread over --spread so that clients do not all come back at once; or they stay (--then leave). The
backend stays without new flows until --cancel. Ctrl-C ends --watch, not the drain.
`;

export const ADMIN_STATE_HELP = `
Examples:
  haports admin-state nvas/nva-1 down
  haports admin-state nvas/nva-1 configured

none follows the probe, up and down override it, configured is what the configuration says. Existing flows of a backend
that goes down meet their rule's flow policy for admin-down; "haports drain" lets them finish.
`;

export const WEIGHT_HELP = `
Examples:
  haports weight nvas/nva-1 10
  haports weight nvas/nva-1 configured

Weight 0 gives no new flows. The weight holds, over reloads too, until configured gives it back.
`;

export const RELOAD_HELP = `
Examples:
  haports reload
  haports reload -c new.json --max-moved 2%

The text of the file is sent; files that it names are read by the process. "haports plan" shows first what would move.
Exit codes: 1 not applied, 2 the configuration cannot be used, 3 more would move than --max-moved. Whenever it is not
0, nothing has changed.
`;

export const UPGRADE_HELP = `
Examples:
  haports upgrade
  haports upgrade --deadline 1h

The running process starts itself anew, from the files that are there now, hands over its listening sockets and UDP
flows, and then lets its TCP flows finish until shutdown.deadline or --deadline. If the new process is not ready within
30 s (a broken configuration, for one), the old one goes on as if nothing had happened. SIGUSR2 does the same.
`;

export const EVENTS_HELP = `
Examples:
  haports events
  haports events --follow --json
  haports events --since 1200

Ids grow by one with each event; --follow shows only new ones unless --since says from where.
`;

export const COMPLETION_HELP = `
Examples:
  source <(haports completion bash)
  haports completion zsh > ~/.zfunc/_haports     with ~/.zfunc in $fpath, before compinit
`;

export const PLAN_HELP = `
Examples:
  haports plan new.json
  haports plan new.json --max-moved 2%
  haports plan new.json --against config.json

Shows per rule the share of the hash space that moves, live flows that stay, move or end, backends whose probe state is
lost, listeners, and the steps in their order: what is added comes before what is removed. Exit codes: 2 the
configuration cannot be used, 3 more would move than --max-moved.
`;

export const SIMULATE_HELP = `
Examples:
  haports simulate --down nvas/nva-1
  haports simulate --live --drain nvas/nva-1 --weight nvas/nva-2=50
  haports simulate --offline config.json --down nvas/nva-1 --sources 3
  haports simulate --flow-log /var/log/haports/flow.log --drain nvas/nva-1

--flow-log asks no process: it starts from the log's own last configuration and epoch, or from the file that --offline
names, with every probe up.
`;

export const REPLAY_HELP = `
Examples:
  haports replay /var/log/haports/flow.log
  haports replay flow.log --json

Every decision is recomputed from the configurations and epochs in the log. Exit codes: 1 a decision comes out
differently.
`;
