//! gcc: sources of the host's, a program in the container's layer.

use crate::common::Place;

const SOURCES: &str = r#"
mkdir -p sources
cat > sources/sum.h << 'end'
double sum(const double *values, int count);
end
cat > sources/sum.c << 'end'
#include "sum.h"
#include <math.h>
double sum(const double *values, int count) {
    double total = 0;
    for (int i = 0; i < count; i++) total += sqrt(values[i]);
    return total;
}
end
cat > sources/main.c << 'end'
#include "sum.h"
#include <pthread.h>
#include <stdio.h>
static double totals[4];
static void *part(void *number) {
    double values[] = {1, 4, 9, 16};
    totals[(long)number] = sum(values, 4);
    return NULL;
}
int main(void) {
    pthread_t threads[4];
    for (long i = 0; i < 4; i++) pthread_create(&threads[i], NULL, part, (void *)i);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    printf("%.0f\n", totals[0] + totals[1] + totals[2] + totals[3]);
    return 0;
}
end
"#;

pub(super) fn makes_a_program(place: &Place) {
    place.run(SOURCES);
    // Objects beside the sources, the program in the container.
    place.run(
        "lamel run --network none --name gcc -v $PWD/sources:/sources -w /sources debian:1 sh -ec '
             gcc -O2 -Wall -Werror -c sum.c & gcc -O2 -Wall -Werror -c main.c; wait
             ar rcs libsum.a sum.o; gcc -o /usr/local/bin/total main.o -L. -lsum -lm -pthread'",
    );
    assert_eq!(place.run("ls sources"), "libsum.a\nmain.c\nmain.o\nsum.c\nsum.h\nsum.o");
    assert_eq!(place.run("lamel diff gcc"), "C /tmp\nC /usr\nC /usr/local\nC /usr/local/bin\nA /usr/local/bin/total");
    place.run("lamel commit -c 'CMD [\"total\"]' gcc total:1 > /dev/null; lamel rm gcc > /dev/null");
    assert_eq!(place.run("lamel run --rm --network none total:1"), "40");
}
