#!/usr/bin/perl
# Opens transparent, listening TCP sockets and runs a program with them, as systemd.socket(5) with Transparent=yes does:
#   launch-transparent.pl PORT FAMILIES PROGRAM...      FAMILIES: 4, 6 or 46
# Perl's own modules only. The descriptors begin at 3; LISTEN_FDS and LISTEN_PID tell of them.
use strict;
use warnings;
use Socket qw(:all);
use POSIX ();

$^F = 1000;    # no close-on-exec
my ($port, $families, @program) = @ARGV;
my ($IP_TRANSPARENT, $IPV6_TRANSPARENT) = (19, 75);    # linux/in.h, linux/in6.h
my @sockets;
for my $family (split //, $families) {
  my $six = $family == 6;
  socket(my $socket, $six ? AF_INET6 : AF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
  setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1) or die "SO_REUSEADDR: $!\n";
  setsockopt($socket, IPPROTO_IPV6, IPV6_V6ONLY, 1) or die "IPV6_V6ONLY: $!\n" if $six;
  setsockopt($socket, $six ? IPPROTO_IPV6 : IPPROTO_IP, $six ? $IPV6_TRANSPARENT : $IP_TRANSPARENT, pack('i', 1))
    or die "transparent: $!\n";
  my $any = $six ? pack_sockaddr_in6($port, IN6ADDR_ANY) : pack_sockaddr_in($port, INADDR_ANY);
  bind($socket, $any) or die "bind: $!\n";
  listen($socket, 4096) or die "listen: $!\n";
  push @sockets, $socket;
}
# Out of the way first: a socket may sit where another belongs.
my @high = map { POSIX::dup2(fileno($_), 100 + fileno($_)); 100 + fileno($_) } @sockets;
close($_) for @sockets;
for my $index (0 .. $#high) {
  POSIX::dup2($high[$index], 3 + $index);
  POSIX::close($high[$index]);
}
$ENV{LISTEN_FDS} = scalar @high;
$ENV{LISTEN_PID} = $$;
exec { $program[0] } @program or die "exec: $!\n";
