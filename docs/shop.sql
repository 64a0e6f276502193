-- The tables that the examples in these pages use. `npm test` makes them and runs every example.
CREATE TABLE accounts (id INT PRIMARY KEY, balance INT NOT NULL);
CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, customer INT NOT NULL, total INT NOT NULL, paid BOOLEAN NOT NULL DEFAULT FALSE);
CREATE TABLE reports (day DATE PRIMARY KEY, total INT NOT NULL);
INSERT INTO accounts VALUES (1, 100), (2, 100), (3, 100);
INSERT INTO orders (customer, total) VALUES (7, 10), (7, 20), (8, 30), (9, 40);
CREATE TABLE receipts (id CHAR(36) PRIMARY KEY);
