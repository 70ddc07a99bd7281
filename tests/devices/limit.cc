// A session's limit against a tree like /proc: `limit SECONDS STRETCH PROC` prints, for each time on standard input, how long is left, and
// whether the session was starved.
#include "limit.h"

#include <cstdlib>
#include <iostream>

int main(int, char** words) {
  agent::Limit limit(atof(words[1]), atof(words[2]), 7, 0, words[3]);
  double now;
  while (std::cin >> now) {
    double left = limit.Left(now);
    std::cout << left << " " << limit.starved() << std::endl;
  }
}
