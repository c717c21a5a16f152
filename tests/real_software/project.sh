# Generates a C project of a hundred files in the current directory, builds it, and checks that make sees every change.
set -eu
mkdir -p src include build
cat > Makefile <<'MAKE'
CC = gcc
CFLAGS = -O1 -Wall -Iinclude -MMD -MP -ffile-prefix-map=$(CURDIR)=.
objects = $(patsubst src/%.c,build/%.o,$(wildcard src/*.c))
build/program: main.c build/libparts.a
	$(CC) $(CFLAGS) -MF build/main.d -o $@ main.c build/libparts.a
build/libparts.a: $(objects)
	rm -f $@
	ar rcsD $@ $(sort $^)
build/%.o: src/%.c
	$(CC) $(CFLAGS) -c -o $@ $<
	echo $< >> times
-include $(wildcard build/*.d)
MAKE
echo '#define FACTOR 3' > include/common.h
for n in $(seq 100); do
    printf 'int part%d(int);\n' "$n" > "include/part$n.h"
    next=$((n % 100 + 1))
    {
        printf '#include "part%d.h"\n#include "part%d.h"\n' "$n" "$next"
        [ $((n % 10)) = 0 ] && printf '#include "common.h"\n' || printf '#define FACTOR 1\n'
        printf 'int part%d(int x) { return x <= 0 ? 0 : %d * FACTOR + part%d(x - 1); }\n' "$n" "$n" "$next"
    } > "src/part$n.c"
done
printf '#include <stdio.h>\n#include "part1.h"\nint main(void) { printf("%%d\\n", part1(100)); }\n' > main.c

made() { touch times; wc -l < times; rm -f times; }
make -s -j2
[ "$(made)" = 100 ]
[ "$(./build/program)" = 6150 ]
# Nothing to do.
make -q
# One header, ten users of it.
echo '#define FACTOR 5' > include/common.h
make -s -j2
[ "$(made)" = 10 ]
[ "$(./build/program)" = 7250 ]
# A file replaced by a rename, as editors do.
sed 's/part1(100)/part1(10)/' main.c > main.new && mv main.new main.c
make -s
[ "$(./build/program)" = 95 ]
rm -r build
mkdir build
make -s -j2
[ "$(made)" = 100 ]
touch times
