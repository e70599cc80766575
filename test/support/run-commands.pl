# Runs commands that come on its standard input, side by side, until that ends: a small process forks in a tenth of the
# time that a test's own takes.
#
# A request is a line "<id> <bytes of words> <bytes of input>", then the words with a NUL after each, then the input. An
# answer is a line "<id> <wait status> <bytes of output> <bytes of errors>", then the output, then the errors.
use strict;
use warnings;
use POSIX ();

pipe my $woken, my $wake or die "pipe: $!";
$SIG{CHLD} = sub { syswrite $wake, 'x' };
# By process id.
my %running;
my $requests = '';

sub stored {
    my ($bytes) = @_;
    open my $file, '+>', undef or die "temporary file: $!";
    syswrite $file, $bytes;
    sysseek $file, 0, 0;
    return $file;
}

sub content {
    my ($file) = @_;
    sysseek $file, 0, 0;
    my $bytes = '';
    1 while sysread $file, $bytes, 1 << 20, length $bytes;
    return $bytes;
}

sub start {
    my ($id, $words, $input) = @_;
    my ($in, $out, $err) = map { stored($_) } $input, '', '';
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDIN, '<&', $in;
        open STDOUT, '>&', $out;
        open STDERR, '>&', $err;
        my @words = split /\0/, $words, -1;
        pop @words;
        exec { $words[0] } @words or syswrite STDERR, "$words[0]: $!\n";
        POSIX::_exit(127);
    }
    $running{$pid} = [$id, $out, $err];
}

sub answer {
    my ($pid, $status) = @_;
    my ($id, $out, $err) = @{ delete $running{$pid} };
    my ($output, $errors) = (content($out), content($err));
    my $answer = "$id $status " . length($output) . ' ' . length($errors) . "\n$output$errors";
    for (my $sent = 0; $sent < length $answer;) {
        my $count = syswrite STDOUT, $answer, length($answer) - $sent, $sent;
        $sent += $count if defined $count;
        exit 1 if !defined $count && !$!{EINTR};
    }
}

while (1) {
    my $ready = '';
    vec($ready, fileno $_, 1) = 1 for $woken, \*STDIN;
    # Perl runs a handler between its own steps: for a signal that comes just before select() waits, that is after it.
    my $found = select $ready, undef, undef, %running ? 0.1 : undef;
    while ((my $pid = waitpid -1, POSIX::WNOHANG) > 0) { answer($pid, $?) }
    next if $found <= 0;
    sysread $woken, my $signals, 4096 if vec $ready, fileno $woken, 1;
    next if !vec $ready, fileno STDIN, 1;
    sysread STDIN, $requests, 1 << 20, length $requests or last;
    while ($requests =~ /^(\d+) (\d+) (\d+)\n/ && length $requests >= $+[0] + $2 + $3) {
        my ($id, $head, $words, $input) = ($1, $+[0], $2, $3);
        start($id, substr($requests, $head, $words), substr($requests, $head + $words, $input));
        substr $requests, 0, $head + $words + $input, '';
    }
}
