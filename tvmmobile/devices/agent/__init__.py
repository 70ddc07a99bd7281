"""The device agent, a C++ program against TVM's runtime (`agent.cc`), and how it is built (`build`)."""
