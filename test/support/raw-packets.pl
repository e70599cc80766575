# Packets that Node cannot send.
#   answer PROTOCOL NAME [ADDRESS]         prints "ready", then answers each packet of an IP protocol without ports by its
#                                          first 8 bytes and the name; only packets to that address of its own, and from it
#   ask PROTOCOL SOURCE ADDRESS            prints the name in the answer, or "no answer"
#   refuse FRONTEND PORT CLIENT PORTS...   sends an ICMP error about each datagram that the port of a frontend is said to
#                                          have sent to a port of this machine
use strict;
use warnings;
use Socket qw(:DEFAULT inet_pton AF_INET6 SOCK_RAW pack_sockaddr_in6);
$| = 1;
my ($verb, @arguments) = @ARGV;
{ answer => \&answer, ask => \&ask, refuse => \&refuse }->{$verb}->(@arguments);

sub raw {
  my ($family, $protocol) = @_;
  socket(my $socket, $family, SOCK_RAW, $protocol) or die "socket: $!";
  return $socket;
}

sub answer {
  my ($protocol, $name, $address) = @_;
  my $socket = raw(AF_INET, $protocol);
  if ($address) { bind($socket, sockaddr_in(0, inet_aton($address))) or die "bind: $!" }
  print "ready\n";
  while (my $from = recv($socket, my $packet, 2048, 0)) {
    my $body = substr($packet, (ord($packet) & 15) * 4);
    send($socket, substr($body, 0, 8) . $name, 0, $from);
  }
}

sub ask {
  my ($protocol, $source, $address) = @_;
  my $socket = raw(AF_INET, $protocol);
  bind($socket, sockaddr_in(0, inet_aton($source))) or die "bind: $!";
  connect($socket, sockaddr_in(0, inet_aton($address))) or die "connect: $!";
  # As GRE: version 0, no key, IPv4 inside. As ESP: an index of security parameters, and a sequence number.
  send($socket, $protocol == 47 ? pack('nnN', 0, 0x0800, 1) : pack('NN', 4242, 1), 0);
  my $ready = '';
  vec($ready, fileno($socket), 1) = 1;
  if (select($ready, undef, undef, 2)) {
    recv($socket, my $packet, 2048, 0);
    print substr($packet, (ord($packet) & 15) * 4 + 8), "\n";
  } else {
    print "no answer\n";
  }
}

sub refuse {
  my ($frontend, $frontend_port, $client, @ports) = @_;
  my $six = $frontend =~ /:/;
  my $family = $six ? AF_INET6 : AF_INET;
  my ($from, $to) = map { inet_pton($family, $_) } $frontend, $client;
  my $socket = raw($family, $six ? 58 : 1);
  for my $port (@ports) {
    my $udp = pack('nnnn', $frontend_port, $port, 8, 0);
    my $packet = $six
      ? pack('NnCC', 0x60000000, length $udp, 17, 60) . $from . $to . $udp
      : pack('CCnnnCCn', 0x45, 0, 20 + length $udp, 1, 0, 60, 17, 0) . $from . $to . $udp;
    # Port unreachable. The kernel fills in the checksum of ICMPv6.
    my $message = pack('CCnN', $six ? (1, 4) : (3, 3), 0, 0) . $packet;
    substr($message, 2, 2) = pack('n', checksum($message)) unless $six;
    send($socket, $message, 0, $six ? pack_sockaddr_in6(0, $from) : sockaddr_in(0, $from)) or die "send: $!";
  }
}

sub checksum {
  my $sum = 0;
  $sum += $_ for unpack('n*', $_[0]);
  $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
  return ~$sum & 0xffff;
}
