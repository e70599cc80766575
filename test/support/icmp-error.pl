# Sends an ICMP error about each datagram that a frontend is said to have sent to a port of this machine.
#   icmp-error.pl FRONTEND FRONTEND_PORT CLIENT PORT...
use strict;
use warnings;
use Socket qw(:DEFAULT inet_pton AF_INET6 SOCK_RAW pack_sockaddr_in6);

my ($frontend, $frontend_port, $client, @ports) = @ARGV;
my $six = $frontend =~ /:/;
my $family = $six ? AF_INET6 : AF_INET;
my ($from, $to) = map { inet_pton($family, $_) } $frontend, $client;
socket(my $socket, $family, SOCK_RAW, $six ? 58 : 1) or die "socket: $!";
for my $port (@ports) {
  my $udp = pack('nnnn', $frontend_port, $port, 8, 0);
  my $packet = $six
    ? pack('NnCC', 0x60000000, length $udp, 17, 60) . $from . $to . $udp
    : pack('CCnnnCCn', 0x45, 0, 20 + length $udp, 1, 0, 60, 17, 0) . $from . $to . $udp;
  # Port unreachable. The kernel fills in the checksum of ICMPv6.
  my $message = pack('CCnN', $six ? (1, 4) : (3, 3), 0, 0) . $packet;
  substr($message, 2, 2) = pack('n', checksum($message)) unless $six;
  my $address = $six ? pack_sockaddr_in6(0, $from) : sockaddr_in(0, $from);
  send($socket, $message, 0, $address) or die "send: $!";
}

sub checksum {
  my $sum = 0;
  $sum += $_ for unpack('n*', $_[0]);
  $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
  return ~$sum & 0xffff;
}
